//! Deletion of a ClusterSpec: its keys stay, unless the user sets `deletionPolicy: Delete` and confirms with an
//! annotation. Also deletes single objects that are not needed any more.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys::{self, CLUSTER_LABEL, CONFIRM_DELETION_ANNOTATION};
use keyplane_crds::{ClusterSpec, DeletionPolicy, reasons};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Context, Error};
use keyplane_client::apply::update_status;
use keyplane_client::write::{self, Deleted};
use keyplane_core::blocker::Blocker;
use keyplane_core::model::Cluster;
use keyplane_core::names::{MANAGED_BY, MANAGED_BY_LABEL};
use keyplane_core::observed::Observed;
use keyplane_core::plan::{Kind, Removal};
use keyplane_core::status;

/// Sets or removes the finalizer, and handles a deletion. Returns `None` if the object is not being deleted.
pub(super) async fn handle(found: &ClusterSpec, context: &Context) -> Result<Option<Action>, Error> {
    let (namespace, name) = (found.namespace().unwrap_or_default(), found.name_any());
    let held = found.finalizers().iter().any(|finalizer| finalizer == keys::CLUSTERSPEC_FINALIZER);
    let delete = found.spec.deletion_policy == DeletionPolicy::Delete;
    if found.metadata.deletion_timestamp.is_none() {
        if delete != held {
            set_finalizer(found, delete, context).await?;
        }
        return Ok(None);
    }
    context.targets.stop(&namespace, &name);
    if !held {
        return Ok(Some(Action::await_change()));
    }
    if delete {
        if found.annotations().get(keys::CONFIRM_DELETION_ANNOTATION) != Some(&name) {
            let blocker = Blocker {
                reason: reasons::DELETION_NOT_CONFIRMED,
                message: format!(
                    "spec.deletionPolicy is Delete, so all keys of {name} will be deleted: confirm with `kubectl annotate \
                     clusterspec {name} -n {namespace} {CONFIRM_DELETION_ANNOTATION}={name}`, or keep them with \
                     `kubectl patch clusterspec {name} -n {namespace} --type merge -p \
                     '{{\"spec\":{{\"deletionPolicy\":\"Retain\"}}}}'`"
                ),
            };
            let previous = found.status.clone().unwrap_or_default();
            let status = status::refused(&previous, &blocker, found.metadata.generation, Timestamp::now());
            let api: Api<ClusterSpec> = Api::namespaced(context.client.clone(), &namespace);
            let updated = update_status(&api, &name, found.status.as_ref(), &status).await;
            updated.map_err(Error::api("writing the status"))?;
            return Ok(Some(Action::await_change()));
        }
        context.agents.remove_all(&namespace, &name, context).await?;
        delete_all::<Secret>(&namespace, &name, context).await?;
        delete_all::<ConfigMap>(&namespace, &name, context).await?;
    }
    set_finalizer(found, false, context).await?;
    Ok(Some(Action::await_change()))
}

async fn delete_all<K>(namespace: &str, cluster: &str, context: &Context) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + std::fmt::Debug,
    K: DeserializeOwned,
{
    let kind = K::kind(&());
    let ours = format!("{MANAGED_BY_LABEL}={MANAGED_BY},{CLUSTER_LABEL}={cluster}");
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(context.client.clone(), namespace);
    let found = api.list(&ListParams::default().labels(&ours)).await;
    for object in found.map_err(Error::api(format!("listing {kind}s")))? {
        // The preconditions protect an object that was recreated since the list.
        let preconditions = Preconditions { uid: object.uid(), resource_version: object.resource_version() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(&object.name_any(), &params).await {
            Ok(_) => tracing::info!(namespace, cluster, kind = %kind, name = object.name_any(), "deleted"),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(Error::api(format!("deleting {kind} {}", object.name_any()))(error)),
        }
    }
    Ok(())
}

/// Deletes an object that is not needed any more, and counts the write.
pub(super) async fn remove(
    cluster: &Cluster,
    observed: &mut Observed,
    removal: &Removal,
    context: &Context,
) -> Result<(), Error> {
    let (client, name, kind) = (context.client.clone(), &removal.name, removal.kind.name());
    let (uid, version) = (removal.uid.clone(), removal.resource_version.clone());
    let deleted = match removal.kind {
        Kind::Secret => write::delete(&Api::<Secret>::namespaced(client, &cluster.namespace), name, uid, version).await,
        Kind::ConfigMap => {
            write::delete(&Api::<ConfigMap>::namespaced(client, &cluster.namespace), name, uid, version).await
        }
    };
    match deleted.map_err(Error::api(format!("deleting {kind} {name}")))? {
        Deleted::Done => context.metrics.writes.with_label_values(&[kind]).inc(),
        Deleted::Conflict => return Err(Error::Conflict(format!("{kind} {name}"))),
    }
    match removal.kind {
        Kind::Secret => _ = observed.secrets.remove(name),
        Kind::ConfigMap => _ = observed.config_maps.remove(name),
    }
    Ok(())
}

async fn set_finalizer(found: &ClusterSpec, held: bool, context: &Context) -> Result<(), Error> {
    let mut finalizers: Vec<_> =
        found.finalizers().iter().filter(|other| *other != keys::CLUSTERSPEC_FINALIZER).cloned().collect();
    if held {
        finalizers.push(keys::CLUSTERSPEC_FINALIZER.to_owned());
    }
    // The patch replaces the whole list. The resource version ensures that no other finalizer is lost.
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": found.metadata.resource_version}});
    let api: Api<ClusterSpec> = Api::namespaced(context.client.clone(), &found.namespace().unwrap_or_default());
    match api.patch(&found.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::api("setting the finalizer")(error)),
    }
}

#[cfg(test)]
mod tests;
