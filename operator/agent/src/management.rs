//! The machine's objects in the management cluster: read, and reported in the Lease.

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

use super::carry::Objects;
use super::index::{Wanted, read};
use keyplane_client::causes;
use keyplane_core::agent_access::settings::Settings;
use keyplane_core::agent_report::NodeReport;
use keyplane_core::names;
use keyplane_core::names::{node_config_map, node_secret};
use keyplane_core::rotation::revocation::revoked;

/// Why something could not be had from the management cluster.
#[derive(Debug)]
pub enum Trouble {
    /// The credential is not good any more.
    Unauthorized(String),
    /// Anything else.
    Other(String),
}

impl Trouble {
    fn of(what: &str, error: &kube::Error) -> Self {
        let text = format!("{what}: {}", causes(error));
        match error {
            kube::Error::Api(status) if status.code == 401 => Self::Unauthorized(text),
            _ => Self::Other(text),
        }
    }

    /// What it says.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Unauthorized(text) | Self::Other(text) => text,
        }
    }
}

/// What was read.
#[derive(Default)]
pub struct Fetched {
    /// Both objects, as far as they are there and sound.
    pub objects: Objects,
    /// From which authority the kubelet's certificates are to come.
    pub kubelet_authority: Option<String>,
    /// For which restart it is the machine's turn. Nothing where nobody has to wait for one.
    pub restart_turn: Option<String>,
    /// For what etcd is to be started anew.
    pub etcd_restart: Option<String>,
    /// The SHA-256 of the authorities that were revoked.
    pub revoked: Vec<String>,
    /// Why an object was refused.
    pub refused: Vec<String>,
}

/// The machine's objects.
#[derive(Clone)]
pub struct Management {
    client: Client,
    settings: Settings,
}

impl Management {
    /// Through this client.
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

    /// Reads both: the ConfigMap first, so that the Secret is at least as new. Static pods refer to what is in it.
    ///
    /// # Errors
    /// If one could not be read.
    pub async fn fetch(&self) -> Result<Fetched, Trouble> {
        let namespace = &self.settings.namespace;
        let (config, secret) = (self.config_map(), self.secret());
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let found = config_maps.get_opt(&config).await;
        let config_map = found.map_err(|error| Trouble::of(&format!("reading ConfigMap {config}"), &error))?;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = secrets.get_opt(&secret).await;
        let secret = found.map_err(|error| Trouble::of(&format!("reading Secret {secret}"), &error))?;
        Ok(Fetched::of(config_map, secret))
    }

    /// Something of either object has changed. What, is read when it is needed: keys are not kept.
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

    /// Reports. The Lease is the operator's: an agent may not make it.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn report(&self, report: &NodeReport, now: Timestamp) -> Result<(), Trouble> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.settings.namespace);
        let name = names::agent_lease(&self.settings.cluster, &self.settings.node);
        let text = serde_json::to_string(report).unwrap_or_default();
        let told = |error: kube::Error| Trouble::of(&format!("writing Lease {name}"), &error);
        let mut lease = leases.get(&name).await.map_err(told)?;
        lease.annotations_mut().insert(keys::AGENT_REPORT_ANNOTATION.to_owned(), text);
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.settings.node.clone());
        spec.renew_time = Some(MicroTime(now));
        leases.replace(&name, &PostParams::default(), &lease).await.map_err(told).map(drop)
    }
}

impl Fetched {
    /// Reads what the objects want.
    #[must_use]
    pub fn of(config_map: Option<ConfigMap>, secret: Option<Secret>) -> Self {
        let mut fetched = Self::default();
        if let Some(config_map) = config_map {
            let annotations = config_map.metadata.annotations.clone().unwrap_or_default();
            let texts = config_map.data.clone().unwrap_or_default();
            let data = texts.into_iter().map(|(key, text)| (key, text.into_bytes())).collect();
            fetched.kubelet_authority = annotations.get(keys::KUBELET_CA_ANNOTATION).cloned();
            fetched.restart_turn = annotations.get(keys::RESTART_PERMIT_ANNOTATION).cloned();
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
    ) -> Option<Wanted> {
        self.revoked
            .extend(annotations.get(keys::REVOKED_CAS_ANNOTATION).map(|text| revoked(text)).unwrap_or_default());
        match read(what, annotations, data) {
            Ok(wanted) => Some(wanted),
            Err(refused) => {
                self.refused.push(refused.to_string());
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
