//! Reads the node's objects in the management cluster, and writes the agent report to the node's Lease.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::stream::{BoxStream, select};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys;
use kube::api::PostParams;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};

use super::apply::Objects;
use super::index::{DesiredFiles, read};
use keyplane_client::causes;
use keyplane_core::agent_access::settings::Settings;
use keyplane_core::agent_report::NodeReport;
use keyplane_core::names::{self, node_config_map, node_secret};
use keyplane_core::rotation::revocation::revoked;

/// An error of a request to the management cluster.
#[derive(Debug)]
pub enum ManagementError {
    /// The API server rejects the credential.
    Unauthorized(String),
    /// Any other error.
    Other(String),
}

impl ManagementError {
    fn of(what: &str, error: &kube::Error) -> Self {
        let text = format!("{what}: {}", causes(error));
        match error {
            kube::Error::Api(status) if status.code == 401 => Self::Unauthorized(text),
            _ => Self::Other(text),
        }
    }

    /// The message.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Unauthorized(text) | Self::Other(text) => text,
        }
    }
}

/// The node's objects and annotations, as read from the management cluster.
#[derive(Default)]
pub struct Fetched {
    /// Both objects, as far as they exist and are valid.
    pub objects: Objects,
    /// Fingerprint of the CA that must issue the kubelet's certificates.
    pub kubelet_ca: Option<String>,
    /// The restart permit; `None` if restarts need no permit.
    pub restart_permit: Option<String>,
    /// The requested restart of etcd.
    pub etcd_restart: Option<String>,
    /// SHA-256 of the revoked CAs.
    pub revoked: Vec<String>,
    /// Errors of rejected objects.
    pub rejected: Vec<String>,
}

/// Access to the node's objects in the management cluster.
#[derive(Clone)]
pub struct Management {
    client: Client,
    settings: Settings,
}

impl Management {
    /// Creates the access through a client.
    #[must_use]
    pub fn new(client: Client, settings: Settings) -> Self {
        Self { client, settings }
    }

    fn secret(&self) -> String {
        node_secret(&self.settings.cluster, &self.settings.node)
    }

    fn config_map(&self) -> String {
        node_config_map(&self.settings.cluster, &self.settings.node)
    }

    /// Reads both objects. The ConfigMap is read first, so that the Secret is at least as new: static pods refer to
    /// files of the Secret.
    ///
    /// # Errors
    /// An object can't be read.
    pub async fn fetch(&self) -> Result<Fetched, ManagementError> {
        let namespace = &self.settings.namespace;
        let (config, secret) = (self.config_map(), self.secret());
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let found = config_maps.get_opt(&config).await;
        let config_map = found.map_err(|error| ManagementError::of(&format!("reading ConfigMap {config}"), &error))?;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = secrets.get_opt(&secret).await;
        let secret = found.map_err(|error| ManagementError::of(&format!("reading Secret {secret}"), &error))?;
        Ok(Fetched::of(config_map, secret))
    }

    /// Watches both objects for changes. The watch reads metadata only, so that keys are not kept in memory.
    pub fn changes(&self) -> BoxStream<'static, ()> {
        let namespace = &self.settings.namespace;
        let of = |name: String| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let config_maps: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(self.client.clone(), namespace);
        let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(self.client.clone(), namespace);
        let config_maps =
            watcher::watcher(config_maps, of(self.config_map())).default_backoff().map(|event| is_change(&event));
        let secrets = watcher::watcher(secrets, of(self.secret())).default_backoff().map(|event| is_change(&event));
        select(config_maps, secrets).filter_map(|changed| std::future::ready(changed.then_some(()))).boxed()
    }

    /// Writes the agent report. The operator creates the Lease: an agent is not allowed to create it.
    ///
    /// # Errors
    /// The Lease can't be written.
    pub async fn report(&self, report: &NodeReport, now: Timestamp) -> Result<(), ManagementError> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.settings.namespace);
        let name = names::agent_lease(&self.settings.cluster, &self.settings.node);
        let text = serde_json::to_string(report).unwrap_or_default();
        let lease_error = |error: kube::Error| ManagementError::of(&format!("writing Lease {name}"), &error);
        let mut lease = leases.get(&name).await.map_err(lease_error)?;
        lease.annotations_mut().insert(keys::AGENT_REPORT_ANNOTATION.to_owned(), text);
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.settings.node.clone());
        spec.renew_time = Some(MicroTime(now));
        leases.replace(&name, &PostParams::default(), &lease).await.map_err(lease_error).map(drop)
    }
}

impl Fetched {
    /// Parses the objects.
    #[must_use]
    pub fn of(config_map: Option<ConfigMap>, secret: Option<Secret>) -> Self {
        let mut fetched = Self::default();
        if let Some(config_map) = config_map {
            let annotations = config_map.metadata.annotations.clone().unwrap_or_default();
            let texts = config_map.data.clone().unwrap_or_default();
            let data = texts.into_iter().map(|(key, text)| (key, text.into_bytes())).collect();
            fetched.kubelet_ca = annotations.get(keys::KUBELET_CA_ANNOTATION).cloned();
            fetched.restart_permit = annotations.get(keys::RESTART_PERMIT_ANNOTATION).cloned();
            fetched.etcd_restart = annotations.get(keys::ETCD_RESTART_ANNOTATION).cloned();
            let what = format!("ConfigMap {}", config_map.name_any());
            fetched.objects.config = fetched.take(&what, &annotations, &data);
        }
        if let Some(secret) = secret {
            let what = format!("Secret {}", secret.name_any());
            let annotations = secret.metadata.annotations.clone().unwrap_or_default();
            let data = secret.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)).collect();
            fetched.objects.secret = fetched.take(&what, &annotations, &data);
        }
        fetched
    }

    fn take(
        &mut self,
        what: &str,
        annotations: &BTreeMap<String, String>,
        data: &BTreeMap<String, Vec<u8>>,
    ) -> Option<DesiredFiles> {
        self.revoked
            .extend(annotations.get(keys::REVOKED_CAS_ANNOTATION).map(|text| revoked(text)).unwrap_or_default());
        match read(what, annotations, data) {
            Ok(wanted) => Some(wanted),
            Err(invalid) => {
                self.rejected.push(invalid.to_string());
                None
            }
        }
    }
}

fn is_change<K>(event: &watcher::Result<watcher::Event<K>>) -> bool {
    match event {
        Ok(watcher::Event::Init | watcher::Event::InitDone) => false,
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(error = causes(error), "watching");
            false
        }
    }
}
