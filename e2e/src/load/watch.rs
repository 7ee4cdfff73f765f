//! A long watch with kubectl, which has to see what is written all the time.
//!
//! A watch ends by itself, with its API server at the latest. That is no failure if it can be begun again at once.

use std::time::Duration;

use super::Subject;
use super::spoken::{Heard, Spoken};
use super::workload::{BEAT, NAMESPACE};

const CLIENT: &str = "kubectl watch";

/// How long nothing may be seen of what is written every second: a new API server takes its time to fill its caches.
const SILENCE: Duration = Duration::from_secs(20);

/// Watches until it is told to stop. Each change that is seen counts as a request.
pub(super) fn run(subject: &Subject) {
    let arguments = ["get", "configmap", BEAT, "-n", NAMESPACE, "--watch", "-o", "jsonpath={.data.at}{\"\\n\"}"];
    while !subject.is_over() {
        let generation = subject.tally.generation();
        let mut watch = match Spoken::start(&subject.target, &subject.lab, &arguments) {
            Ok(watch) => watch,
            Err(error) => {
                subject.tally.failed(CLIENT, &format!("{error:#}"));
                continue;
            }
        };
        let mut has_begun = false;
        // In another phase it is begun anew.
        while !subject.is_over() && subject.tally.generation() == generation {
            match watch.hear(SILENCE) {
                Heard::Line(_) => {
                    has_begun = true;
                    subject.tally.answered(CLIENT);
                }
                Heard::End { .. } if has_begun => {
                    subject.tally.again(CLIENT);
                    break;
                }
                Heard::End { words, .. } => {
                    subject.tally.failed(CLIENT, &format!("it can't be begun: {words}"));
                    break;
                }
                Heard::Nothing => {
                    subject.tally.failed(CLIENT, &format!("nothing was seen for {} s", SILENCE.as_secs()));
                    break;
                }
            }
        }
    }
}
