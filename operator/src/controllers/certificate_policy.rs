//! The CertificatePolicy's controller: says whether the policy could be read.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{CertificatePolicy, set_condition};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};

use super::{Error, RESYNC, config, drive, watch_config};
use crate::cluster::Policy;
use crate::kube::apply::update_status;

type Guarded = DeserializeGuard<CertificatePolicy>;

/// The controller and what its watch knows.
#[must_use]
pub fn controller(client: Client, concurrency: u16) -> (Controller<Guarded>, Store<Guarded>) {
    let controller = Controller::new(Api::<Guarded>::all(client), watch_config()).with_config(config(concurrency));
    let store = controller.store();
    (controller, store)
}

/// Runs until `stop`.
pub async fn run(
    controller: Controller<Guarded>,
    client: Client,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    drive(controller, Arc::new(client), reconcile, stop).await;
}

async fn reconcile(policy: Arc<Guarded>, client: Arc<Client>) -> Result<Action, Error> {
    // A policy that can't be read can't be answered either; the ClusterSpecs that refer to it say so.
    let Ok(policy) = &policy.0 else { return Ok(Action::requeue(RESYNC)) };
    let generation = policy.metadata.generation;
    let mut status = policy.status.clone().unwrap_or_default();
    status.observed_generation = generation;
    let (ready, reason, message) = match Policy::parse(&policy.spec) {
        Ok(_) => (true, "Accepted", "the policy is in force for the ClusterSpecs that refer to it".to_owned()),
        Err(error) => (false, "InvalidSpec", error.to_string()),
    };
    set_condition(&mut status.conditions, "Ready", ready, reason, &message, generation, Timestamp::now());
    let api: Api<CertificatePolicy> = Api::namespaced(Client::clone(&client), &policy.namespace().unwrap_or_default());
    let updated = update_status(&api, &policy.name_any(), policy.status.as_ref(), &status).await;
    updated.map_err(Error::api("writing the status"))?;
    Ok(Action::requeue(RESYNC))
}
