//! The pods that ask the API server as a service account. They count for themselves, in their logs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::asking::Asking;
use super::kubeconfig::OwnersKubeconfig;
use super::spared::Spared;
use super::tally::{Count, Tally};
use super::workload::{ASKS, NAMESPACE, Witness};

/// Its name in the table.
pub(super) const CLIENT: &str = "pods with a token";

/// How often their logs are read.
const PAUSE: Duration = Duration::from_secs(5);

/// How often a log is tried at the end: what is not read then can't be vouched for.
const LAST_TRIES: u32 = 10;

/// Reads the logs.
pub(super) struct Reader {
    asking: Asking,
    tally: Tally,
    pods: Vec<Witness>,
    spared: Spared,
    /// What was counted by pod: requests and failures. What was before the first reading counts for nothing.
    known: BTreeMap<String, (u64, u64)>,
}

impl Reader {
    pub(super) fn new(kubeconfig: OwnersKubeconfig, tally: &Tally, pods: Vec<Witness>, spared: Spared) -> Self {
        let asking = Asking::new(CLIENT, tally, 1, move || kubeconfig.access());
        Self { asking, tally: tally.clone(), pods, spared, known: BTreeMap::new() }
    }

    /// Reads all logs once. One that can't be read is no request of the pod's: the next time will do.
    pub(super) async fn read_all(&mut self) {
        for Witness { pod, node } in self.pods.clone() {
            let read = self.read(&pod, &node).await;
            // Nobody reads a log on a machine that is off, and the next time will do elsewhere.
            drop(read);
        }
    }

    /// Reads all logs for the last time.
    pub(super) async fn finish(&mut self) {
        for Witness { pod, node } in self.pods.clone() {
            let mut result = self.read(&pod, &node).await;
            for _ in 0..LAST_TRIES {
                if result.is_ok() {
                    break;
                }
                sleep(Duration::from_secs(1)).await;
                result = self.read(&pod, &node).await;
            }
            if let Err(error) = result
                && !self.spared.has(&node)
            {
                self.tally.failed(CLIENT, &format!("what {pod} has counted can't be read: {error:#}"));
            }
        }
    }

    async fn read(&mut self, pod: &str, node: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/log?container={ASKS}&tailLines=100");
        let log = String::from_utf8_lossy(&self.asking.uncounted(&path).await?).into_owned();
        let (requests, failed) = counts(&log).with_context(|| format!("{pod} has counted nothing yet"))?;
        let Some((requests_before, failed_before)) = self.known.insert(pod.to_owned(), (requests, failed)) else {
            return Ok(());
        };
        if self.spared.has(node) {
            return Ok(());
        }
        let count = Count {
            // A pod that was restarted begins from zero, which is a failure of its own.
            requests: requests.saturating_sub(requests_before),
            failed: failed.saturating_sub(failed_before),
            ..Count::default()
        };
        self.tally.add(CLIENT, count);
        for words in failures(&log, failed_before + 1..=failed) {
            self.tally.tell(CLIENT, &format!("{pod}: {words}"));
        }
        Ok(())
    }
}

/// Reads for ever.
pub(super) async fn run(reader: std::sync::Arc<tokio::sync::Mutex<Reader>>) {
    loop {
        reader.lock().await.read_all().await;
        sleep(PAUSE).await;
    }
}

/// The last line `COUNT <requests> <failed>`.
fn counts(log: &str) -> Option<(u64, u64)> {
    let line = log.lines().rev().find_map(|line| line.strip_prefix("COUNT "))?;
    let (requests, failed) = line.split_once(' ')?;
    Some((requests.parse().ok()?, failed.trim().parse().ok()?))
}

/// What the lines `FAILED <number> <words>` of these numbers say.
fn failures(log: &str, numbers: std::ops::RangeInclusive<u64>) -> Vec<&str> {
    let lines = log.lines().filter_map(|line| line.strip_prefix("FAILED ")?.split_once(' '));
    lines.filter(|(number, _)| number.parse().is_ok_and(|n| numbers.contains(&n))).map(|(_, words)| words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_the_counts_and_the_failures_that_are_new() {
        let log = "COUNT 8 1\nFAILED 2 new client: refused\nCOUNT 16 2\nFAILED 3 later\n";
        assert_eq!(counts(log), Some((16, 2)));
        assert_eq!(failures(log, 2..=2), ["new client: refused"]);
        assert!(failures(log, 4..=4).is_empty());
        assert_eq!(counts("panic"), None);
    }
}
