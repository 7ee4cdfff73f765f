//! exec and logs, opened again and again for a pod on each node in turn.
//!
//! When the API server sees its new client certificate towards kubelets it closes all its connections to them, also one
//! on which a stream is (client-go, `transport/cert_rotation.go`), and a stream ends with the API server that it goes
//! through. A kubelet that is restarted for its new certificates listens to nobody for a second or two. So a stream that is
//! cut and can be opened again is no failure, it counts as `AGAIN`; nor is an attempt to open one that meets such a moment.
//! Attempts that fail one second after the other, for longer than a kubelet takes to start, are one.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Subject;
use super::spoken::{Heard, Spoken};
use super::workload::{NAMESPACE, TALKS, Witness};

/// Names in the table.
pub(super) const EXEC: &str = "exec streams";
pub(super) const LOGS: &str = "logs streams";

/// How long a stream is kept: the pod says something every second.
const KEPT: Duration = Duration::from_secs(4);

/// The pause where a stream is not tried.
const PAUSE: Duration = Duration::from_millis(500);

/// So many attempts may fail in a row, with a second between them: a kubelet that starts listens within two or three, on a
/// busy machine.
const ATTEMPTS: u32 = 5;

/// The pause between them.
const REOPEN: Duration = Duration::from_secs(1);

/// How long it may be silent.
const SILENCE: Duration = Duration::from_secs(15);

/// One of the two kinds of streams.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Exec,
    Logs,
}

impl Kind {
    fn client(self) -> &'static str {
        match self {
            Self::Exec => EXEC,
            Self::Logs => LOGS,
        }
    }

    fn arguments(self, pod: &str) -> Vec<&str> {
        match self {
            // It ends by itself: nobody tells the process in the pod that kubectl is gone.
            Self::Exec => {
                let talk = "for i in 1 2 3 4 5 6 7 8; do date; sleep 1; done";
                vec!["exec", "-n", NAMESPACE, pod, "-c", TALKS, "--", "sh", "-c", talk]
            }
            Self::Logs => vec!["logs", "-n", NAMESPACE, pod, "-c", TALKS, "--follow", "--tail=1"],
        }
    }
}

/// How an attempt to open and keep a stream went.
enum Outcome {
    Kept,
    Cut,
    NotOpened(String),
}

/// Opens streams until it is told to stop.
pub(super) fn run(kind: Kind, subject: &Subject, pods: &[Witness]) {
    let mut refused = 0;
    for Witness { pod, node } in pods.iter().cycle() {
        loop {
            if subject.is_over() {
                return;
            }
            if subject.spared.has(node) {
                // All may be.
                sleep(PAUSE);
                break;
            }
            match attempt(kind, subject, pod) {
                Outcome::Kept => {
                    refused = 0;
                    subject.tally.answered(kind.client());
                    break;
                }
                Outcome::Cut => {
                    refused = 0;
                    subject.tally.again(kind.client());
                }
                Outcome::NotOpened(words) => {
                    refused += 1;
                    if refused == ATTEMPTS && !subject.spared.has(node) {
                        subject.tally.failed(kind.client(), &format!("{pod}, {ATTEMPTS} times in a row: {words}"));
                        refused = 0;
                        break;
                    }
                    subject.tally.again(kind.client());
                    sleep(REOPEN);
                }
            }
        }
    }
}

fn attempt(kind: Kind, subject: &Subject, pod: &str) -> Outcome {
    let mut stream = match Spoken::start(&subject.target, &subject.lab, &kind.arguments(pod)) {
        Ok(stream) => stream,
        Err(error) => return Outcome::NotOpened(format!("{error:#}")),
    };
    match stream.hear(SILENCE) {
        Heard::Line(_) => {}
        Heard::Nothing => return Outcome::NotOpened("it said nothing".to_owned()),
        Heard::End { words, .. } => return Outcome::NotOpened(words),
    }
    let began = Instant::now();
    while began.elapsed() < KEPT && !subject.is_over() {
        match stream.hear(SILENCE) {
            Heard::Line(_) => {}
            Heard::Nothing | Heard::End { .. } => return Outcome::Cut,
        }
    }
    Outcome::Kept
}
