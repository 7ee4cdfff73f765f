//! A long watch with kubectl, which has to see what is written all the time.
//!
//! A watch ends by itself, with its API server at the latest. That is no failure if it can be begun again at once.

use std::time::Duration;

use super::Subject;
use super::beat;
use super::spoken::{Heard, Spoken};
use super::workload::{BEAT, NAMESPACE};

/// Its name in the table.
pub(super) const CLIENT: &str = "kubectl watch";

/// How many writes may be seen late: there is one a second, and a new API server takes its time to fill its caches.
const UNSEEN: u64 = 20;

/// How often the number of writes is looked at.
const PAUSE: Duration = Duration::from_secs(1);

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
        let written = || {
            let count = subject.tally.total_of(beat::CLIENT);
            count.requests - count.failed
        };
        let mut seen = written();
        // In another phase it is begun anew.
        while !subject.is_over() && subject.tally.generation() == generation {
            match watch.hear(PAUSE) {
                Heard::Line(_) => {
                    has_begun = true;
                    seen = written();
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
                Heard::Nothing if written() - seen > UNSEEN => {
                    subject.tally.failed(CLIENT, &format!("{UNSEEN} writes were not seen"));
                    break;
                }
                Heard::Nothing => {}
            }
        }
    }
}
