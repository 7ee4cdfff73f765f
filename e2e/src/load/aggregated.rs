//! Requests to an aggregated API, which the API server passes on with its front-proxy certificate.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{MissedTickBehavior, interval};

use super::asking::Asking;
use super::kubeconfig::OwnersKubeconfig;
use super::tally::Tally;
use super::workload::WHO_AM_I;

/// Its name in the table.
pub(super) const CLIENT: &str = "aggregated API";

/// Often enough that each API server behind the load balancer is asked every second.
const PAUSE: Duration = Duration::from_millis(250);

/// How many answers a connection is used for.
const KEEP: u32 = 4;

/// As whom the API server says that the owner comes.
const USER: &str = "kubernetes-admin";

/// Asks for ever.
pub(super) async fn run(kubeconfig: OwnersKubeconfig, tally: Tally) {
    let mut asking = Asking::new(CLIENT, &tally, KEEP, move || kubeconfig.access());
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let judge = |body: &hyper::body::Bytes| {
            let user = String::from_utf8_lossy(body);
            ensure!(user.trim() == USER, "the aggregated API server was told that {} asks", user.trim());
            Ok(())
        };
        asking.get_judged(WHO_AM_I, judge).await;
    }
}
