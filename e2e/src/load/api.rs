//! The bulk: cheap requests to the API server, most of which etcd has to answer.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::asking::Asking;
use super::kubeconfig::OwnersKubeconfig;
use super::tally::Tally;

/// Its name in the table.
pub(super) const CLIENT: &str = "API requests";

/// How many ask at the same time.
pub(super) const CLIENTS: u32 = 4;

/// How many answers a connection is used for: with the rate below, each client connects anew every four seconds.
const KEEP: u32 = 100;

/// The pause between two requests of one client: 100 a second in all. Two cores carry all machines, and twice as many
/// leave nothing for a restart, so that a load balancer's checks find no API server in time.
const PAUSE: Duration = Duration::from_millis(40);

/// What is asked for. All but the last are quorum reads of etcd.
const PATHS: [&str; 4] = [
    "/api/v1/namespaces/default",
    "/api/v1/namespaces/kube-system/serviceaccounts/default",
    "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler",
    "/version",
];

/// Asks for ever.
pub(super) async fn run(kubeconfig: OwnersKubeconfig, tally: Tally) {
    let mut asking = Asking::new(CLIENT, &tally, KEEP, move || kubeconfig.access());
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for path in PATHS.iter().cycle() {
        ticks.tick().await;
        asking.get(path).await;
    }
}
