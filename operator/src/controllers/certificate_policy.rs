//! The CertificatePolicy's controller: says whether the policy could be read.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{CertificatePolicy, CertificatePolicyCondition, condition_of, reasons, set_condition};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};

use super::{Error, RESYNC, config, drive, watch_config};
use keyplane_client::apply::update_status;
use keyplane_core::model::Policy;

type Guarded = DeserializeGuard<CertificatePolicy>;

/// Whether the policy is the one by which requests of Keyplane's own cluster are judged.
const APPROVER: &str = CertificatePolicyCondition::ApproverInForce.name();

/// How soon to look again at a policy that another one is in the way of.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// What the controller needs.
pub struct State {
    /// The management cluster.
    pub client: Client,
    /// The policies, as the watch knows them.
    pub policies: Store<Guarded>,
    /// The namespace whose policies count for Keyplane's own cluster.
    pub own_namespace: String,
}

/// The controller and what its watch knows; of one namespace, or of all.
#[must_use]
pub fn controller(client: Client, concurrency: u16, namespace: Option<&str>) -> (Controller<Guarded>, Store<Guarded>) {
    let policies = match namespace {
        Some(namespace) => Api::<Guarded>::namespaced(client, namespace),
        None => Api::<Guarded>::all(client),
    };
    let controller = Controller::new(policies, watch_config()).with_config(config(concurrency));
    let store = controller.store();
    (controller, store)
}

/// Runs until `stop`.
pub async fn run(
    controller: Controller<Guarded>,
    state: State,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    drive(controller, Arc::new(state), reconcile, stop).await;
}

async fn reconcile(policy: Arc<Guarded>, state: Arc<State>) -> Result<Action, Error> {
    // A policy that can't be read can't be answered either; the ClusterSpecs that refer to it say so.
    let Ok(policy) = &policy.0 else { return Ok(Action::requeue(RESYNC)) };
    let generation = policy.metadata.generation;
    let mut status = policy.status.clone().unwrap_or_default();
    status.observed_generation = generation;
    let (ready, reason, message) = match Policy::parse(&policy.spec) {
        Ok(_) => (true, reasons::ACCEPTED, "the policy is in force for the ClusterSpecs that refer to it".to_owned()),
        Err(error) => (false, reasons::INVALID_SPEC, error.to_string()),
    };
    set_condition(
        &mut status.conditions,
        CertificatePolicyCondition::Ready.name(),
        ready,
        reason,
        &message,
        generation,
        Timestamp::now(),
    );
    let mut again = RESYNC;
    if policy.spec.approver.is_some() || condition_of(&status.conditions, APPROVER).is_some() {
        let (in_force, reason, message) = approver_in_force(policy, ready, &state);
        set_condition(&mut status.conditions, APPROVER, in_force, reason, &message, generation, Timestamp::now());
        if reason == reasons::ANOTHER_APPROVER {
            again = LOOK_AGAIN;
        }
    }
    let api: Api<CertificatePolicy> = Api::namespaced(state.client.clone(), &policy.namespace().unwrap_or_default());
    let updated = update_status(&api, &policy.name_any(), policy.status.as_ref(), &status).await;
    updated.map_err(Error::api("writing the status"))?;
    Ok(Action::requeue(again))
}

/// Whether requests of Keyplane's own cluster are judged by this policy, and why not.
fn approver_in_force(policy: &CertificatePolicy, readable: bool, state: &State) -> (bool, &'static str, String) {
    let own = &state.own_namespace;
    let namespace = policy.namespace().unwrap_or_default();
    let other = state.policies.state().into_iter().find(|other| {
        let approves = other.0.as_ref().map_or(true, |other| other.spec.approver.is_some());
        other.namespace().as_deref() == Some(own) && other.name_any() != policy.name_any() && approves
    });
    if policy.spec.approver.is_none() {
        (false, reasons::NO_APPROVER, "the policy has no spec.approver".to_owned())
    } else if namespace != *own {
        let message = format!("spec.approver has effect in the namespace {own} only, which is Keyplane's own");
        (false, reasons::OTHER_NAMESPACE, message)
    } else if !readable {
        (false, reasons::INVALID_SPEC, "the policy could not be read: see Ready".to_owned())
    } else if let Some(other) = other {
        let name = other.name_any();
        let message = format!("{name} has spec.approver too, or can't be read: while there are two, none is in force");
        (false, reasons::ANOTHER_APPROVER, message)
    } else {
        (true, reasons::IN_FORCE, "requests of this cluster's kubelets are judged by this policy".to_owned())
    }
}
