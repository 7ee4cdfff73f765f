//! Executes a plan: issues certificates, writes and deletes objects, and records Events.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Secret};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{ClusterCondition, condition_of, reasons};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Context, Error, deletion, unversioned};
use keyplane_client::write::{Written, write};
use keyplane_core::blocker::Blocker;
use keyplane_core::model::Cluster;
use keyplane_core::observed::Observed;
use keyplane_core::plan::{Step, plan};
use keyplane_core::rollout;
use keyplane_issuance::build_secret;

/// Plans and writes until the plan has no steps; returns the blockers.
pub(super) async fn act(
    cluster: &Cluster,
    observed: &mut Observed,
    reference: &ObjectReference,
    now: Timestamp,
    context: &Context,
) -> Result<Vec<Blocker>, Error> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &cluster.namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &cluster.namespace);
    loop {
        let next = plan(cluster, observed, now);
        if next.steps.is_empty() {
            warn_of_new_blockers(&next.blockers, observed, reference, context).await;
            return Ok(next.blockers);
        }
        for step in next.steps {
            match step {
                Step::Secret(draft) => {
                    let (note, reason, emits_event) = (draft.describe(), draft.reason(), draft.emits_event());
                    let secret = {
                        let (cluster, seen) = (cluster.clone(), std::mem::take(observed));
                        let issued = tokio::task::spawn_blocking(move || (build_secret(*draft, &cluster, &seen), seen));
                        let (secret, seen) = issued.await.map_err(|error| Error::Broken(error.to_string()))?;
                        *observed = seen;
                        secret?
                    };
                    let written = put(&secrets, &secret, context).await?;
                    let other = unversioned(&written);
                    observed.secrets.insert(written.name_any(), written);
                    tracing::info!(namespace = cluster.namespace, cluster = cluster.name, note, "wrote");
                    if emits_event {
                        context.events.normal_about(reference, Some(other), reason, "Issue", &note).await;
                    }
                }
                Step::ConfigMap(config_map) => {
                    let name = config_map.name_any();
                    let before = observed.config_maps.get(&name).and_then(|before| before.data.clone());
                    let changes = changes(before.as_ref(), config_map.data.as_ref());
                    let written = put(&config_maps, &*config_map, context).await?;
                    let mut other = unversioned(&written);
                    let mut note = format!("{} ConfigMap {name}", if before.is_some() { "updated" } else { "created" });
                    let mut reason = reasons::WRITTEN;
                    if !changes.is_empty() {
                        note = format!("{note}: {changes}");
                        reason = reasons::ROLLING_OUT;
                        // Events that differ only in their note would be aggregated into one.
                        other.field_path = Some(changes);
                    }
                    observed.config_maps.insert(name, written);
                    tracing::info!(namespace = cluster.namespace, cluster = cluster.name, note, "wrote");
                    context.events.normal_about(reference, Some(other), reason, "Write", &note).await;
                }
                Step::Removal(removal) => {
                    deletion::remove(cluster, observed, &removal, context).await?;
                    let (namespace, cluster, note) = (&cluster.namespace, &cluster.name, &removal.note);
                    tracing::info!(namespace, cluster, note, "deleted");
                    context
                        .events
                        .normal_about(reference, Some(removal.object(namespace)), removal.reason, "Delete", note)
                        .await;
                }
            }
        }
    }
}

/// Describes the changes of existing static pods by the new data of a ConfigMap; empty without any.
fn changes(before: Option<&BTreeMap<String, String>>, after: Option<&BTreeMap<String, String>>) -> String {
    before.zip(after).map(|(before, after)| rollout::changes(before, after).join(", ")).unwrap_or_default()
}

/// Writes an object, and counts the write.
async fn put<K>(api: &Api<K>, object: &K, context: &Context) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let (kind, name) = (K::kind(&()), object.name_any());
    match write(api, object).await.map_err(Error::api(format!("writing {kind} {name}")))? {
        Written::Done(written) => {
            context.metrics.writes.with_label_values(&[&kind]).inc();
            Ok(written)
        }
        Written::Conflict => Err(Error::Conflict(format!("{kind} {name}"))),
    }
}

/// Records a Warning Event for each blocker that the condition does not contain yet.
async fn warn_of_new_blockers(blockers: &[Blocker], observed: &Observed, about: &ObjectReference, context: &Context) {
    let reported = condition_of(&observed.status.conditions, ClusterCondition::Rendered.name())
        .map(|condition| condition.message.as_str());
    for blocker in blockers {
        if !reported.is_some_and(|message| message.contains(&blocker.message)) {
            context.events.warning(about, blocker.reason, "Plan", &blocker.message).await;
        }
    }
}

#[cfg(test)]
mod tests;
