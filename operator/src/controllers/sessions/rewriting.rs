//! Has objects written anew, unchanged. An API server that reads an object with another key than its first writes it even
//! where nothing in it changes (k8s.io/apiserver, `GuaranteedUpdate` in `storage/etcd3/store.go`).
//!
//! Only metadata come here: they are listed, and a patch names nothing but the version that was seen. Who was faster has
//! written the object anew himself.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiGroup, Scope};
use kube::error::DiscoveryError;
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};

use keyplane_client::{FIELD_MANAGER, causes};
use keyplane_core::encryption::Progress;

/// So many objects are listed at once.
const PAGE: u32 = 500;
/// Fifty a second: no more than what one busy controller does by itself.
const PACE: Duration = Duration::from_millis(20);

/// What is at work.
pub(super) struct Rewriter<'a> {
    client: Client,
    resources: &'a BTreeSet<String>,
    pace: Interval,
}

impl<'a> Rewriter<'a> {
    /// Nothing is done yet.
    pub(super) fn new(client: Client, resources: &'a BTreeSet<String>) -> Self {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { client, resources, pace }
    }

    /// Writes what is left, and tells of it page by page.
    pub(super) async fn go_on(
        &mut self,
        progress: &mut Progress,
        mut tell: impl FnMut(&Progress),
    ) -> Result<(), String> {
        for resource in self.resources {
            if progress.done.contains(resource) {
                continue;
            }
            // What has no API has no objects.
            if let Some((api_resource, scope)) = self.find(resource).await? {
                self.rewrite(resource, &api_resource, &scope, progress, &mut tell).await?;
            } else {
                tracing::warn!(resource, "is not served, so nothing of it is written anew");
            }
            progress.done.insert(resource.clone());
            progress.last = None;
            tell(progress);
        }
        Ok(())
    }

    async fn find(&self, resource: &str) -> Result<Option<(ApiResource, Scope)>, String> {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ApiGroup::CORE_GROUP));
        let group = match kube::discovery::group(&self.client, group).await {
            Ok(group) => group,
            Err(kube::Error::Discovery(DiscoveryError::MissingApiGroup(_))) => return Ok(None),
            Err(error) => return Err(format!("{resource}: {}", told(&error))),
        };
        let found = group.recommended_resources().into_iter().find(|(found, _)| found.plural == plural);
        Ok(found.map(|(found, capabilities)| (found, capabilities.scope)))
    }

    /// The API server lists in the order of namespaces and names, so the last one says where to go on.
    async fn rewrite(
        &mut self,
        resource: &str,
        api_resource: &ApiResource,
        scope: &Scope,
        progress: &mut Progress,
        tell: &mut impl FnMut(&Progress),
    ) -> Result<(), String> {
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), api_resource);
        let mut token: Option<String> = None;
        loop {
            let mut page = ListParams::default().limit(PAGE);
            page.continue_token = token.take();
            let is_first = page.continue_token.is_none();
            let list = match all.list_metadata(&page).await {
                Ok(list) => list,
                // The list has grown too old: it begins anew, and what is done is passed over.
                Err(kube::Error::Api(status)) if status.code == 410 && !is_first => continue,
                Err(error) => return Err(format!("{resource}: {}", told(&error))),
            };
            for object in &list.items {
                let place = place(object);
                let done = progress.last.as_ref().is_some_and(|(of, last)| of == resource && place <= *last);
                if done {
                    continue;
                }
                self.pace.tick().await;
                let api = match (scope, object.namespace()) {
                    (Scope::Namespaced, Some(namespace)) => {
                        Api::namespaced_with(self.client.clone(), &namespace, api_resource)
                    }
                    _ => all.clone(),
                };
                if write(&api, object).await.map_err(|why| format!("{resource} {place}: {why}"))? {
                    progress.objects += 1;
                }
                progress.last = Some((resource.to_owned(), place));
            }
            tell(progress);
            token = list.metadata.continue_.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(());
            }
        }
    }
}

fn place(object: &PartialObjectMeta<DynamicObject>) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

/// Whether this was the one who wrote it.
async fn write(api: &Api<DynamicObject>, object: &PartialObjectMeta<DynamicObject>) -> Result<bool, String> {
    let seen = json!({"metadata": {"uid": object.uid(), "resourceVersion": object.resource_version()}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_metadata(&object.name_any(), &params, &Patch::Merge(seen)).await {
        Ok(_) => Ok(true),
        // It has gone, or somebody else was faster.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(false),
        Err(error) => Err(told(&error)),
    }
}

/// An admission webhook's words may quote the object, so of a refusal only its kind is told.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("the API server answered {} {}", status.code, status.reason),
        other => causes(other),
    }
}
