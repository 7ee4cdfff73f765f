//! What the NodePool controller and the deletion of NodePools share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use keyplane_client::apply::update_status;
use keyplane_core::join::Pool;
use keyplane_core::manifests::systemd::PodRanges;
use keyplane_crds::{NodePool, NodePoolStatus, keys};
use kube::{Api, ResourceExt};

use super::sessions::SessionSpec;
use super::{Context, Error};

/// State of the controller.
pub(super) struct State {
    pub(super) context: Context,
    pub(super) written: Arc<Mutex<Known>>,
}

/// Input of a pool's ConfigMaps.
pub(super) struct Basis {
    pub(super) pool: Pool,
    pub(super) spec: Arc<SessionSpec>,
    pub(super) ranges: Option<PodRanges>,
}

/// The pools with correct ConfigMaps, and their input. Without this cache, each change of a node would read up to two
/// hundred ConfigMaps.
pub(super) type Known = HashMap<(String, String), Basis>;

/// Returns whether the pool has the finalizer, which is required for a token: the deletion can then revoke the token.
#[must_use]
pub fn is_held(pool: &NodePool) -> bool {
    pool.finalizers().iter().any(|finalizer| finalizer == keys::NODEPOOL_FINALIZER)
}

/// Writes the status if it has changed.
pub(super) async fn report(pool: &NodePool, status: &NodePoolStatus, state: &State) -> Result<(), Error> {
    let api: Api<NodePool> = Api::namespaced(state.context.client.clone(), &pool.namespace().unwrap_or_default());
    let updated = update_status(&api, &pool.name_any(), pool.status.as_ref(), status).await;
    if updated.map_err(Error::api("writing the status"))? {
        state.context.metrics.writes.with_label_values(&["NodePool/status"]).inc();
    }
    Ok(())
}
