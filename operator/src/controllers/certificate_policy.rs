//! The CertificatePolicy controller: reports whether the policy is valid, and whether its approver is in force.

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

/// The condition that the policy decides on the CSRs of the management cluster.
const APPROVER: &str = CertificatePolicyCondition::ApproverInForce.name();

/// Requeue delay of a policy that conflicts with another one.
const CONFLICT_PERIOD: Duration = Duration::from_mins(1);

/// Dependencies of the controller.
pub struct State {
    /// Client of the management cluster.
    pub client: Client,
    /// Cache of policies.
    pub policies: Store<Guarded>,
    /// The namespace whose policies apply to the management cluster.
    pub own_namespace: String,
}

/// Creates the controller and its cache, for one namespace or for all.
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
    // A policy that can't be parsed has no usable status. The ClusterSpecs that refer to the policy report the problem.
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
    let mut requeue_after = RESYNC;
    if policy.spec.approver.is_some() || condition_of(&status.conditions, APPROVER).is_some() {
        let (in_force, reason, message) = approver_in_force(policy, ready, &state);
        set_condition(&mut status.conditions, APPROVER, in_force, reason, &message, generation, Timestamp::now());
        if reason == reasons::ANOTHER_APPROVER {
            requeue_after = CONFLICT_PERIOD;
        }
    }
    let api: Api<CertificatePolicy> = Api::namespaced(state.client.clone(), &policy.namespace().unwrap_or_default());
    let updated = update_status(&api, &policy.name_any(), policy.status.as_ref(), &status).await;
    updated.map_err(Error::api("writing the status"))?;
    Ok(Action::requeue(requeue_after))
}

/// Returns whether this policy decides on the CSRs of the management cluster, with the condition's reason and message.
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
        let message = format!(
            "spec.approver has no effect in namespace {namespace}: move the policy to Keyplane's namespace {own}"
        );
        (false, reasons::OTHER_NAMESPACE, message)
    } else if !readable {
        (false, reasons::INVALID_SPEC, "the policy is invalid: see the condition Ready".to_owned())
    } else if let Some(other) = other {
        let name = other.name_any();
        let message = format!(
            "CertificatePolicy {name} also has spec.approver, or can't be parsed: neither is in force; remove one"
        );
        (false, reasons::ANOTHER_APPROVER, message)
    } else {
        (true, reasons::IN_FORCE, "this policy decides on the CSRs of this cluster's kubelets".to_owned())
    }
}

#[cfg(test)]
mod tests;
