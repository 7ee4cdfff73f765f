//! Writes: an object that changes all the time, which the watch has to see.

use std::time::Duration;

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::asking::Asking;
use super::kubeconfig::OwnersKubeconfig;
use super::tally::Tally;
use super::workload::{BEAT, NAMESPACE};

/// Its name in the table.
pub(super) const CLIENT: &str = "API writes";

/// How often it is written.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes for ever.
pub(super) async fn run(kubeconfig: OwnersKubeconfig, tally: Tally) {
    let mut asking = Asking::new(CLIENT, &tally, 1, move || kubeconfig.access());
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{BEAT}");
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 1_u64.. {
        ticks.tick().await;
        asking.merge(&path, &json!({"data": {"at": number.to_string()}})).await;
    }
}
