//! Creates, repairs and deletes the agents' objects in the management cluster.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Secret, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{NodeAgent, NodePool, keys, reasons};
use kube::api::PostParams;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::watched::{Agents, of_cluster};
use crate::controllers::{Context, Error, RESYNC};
use keyplane_client::write::{Written, delete, write};
use keyplane_core::agent_access::bootstrap::{Bootstrap, decide};
use keyplane_core::agent_access::objects::{AgentObjects, agent_objects, bootstrap, is_of_agent, with_token};
use keyplane_core::agent_report::CredentialKind;
use keyplane_core::join::Pool;
use keyplane_core::model::Cluster;
use keyplane_core::names;
use keyplane_core::objects::to_write;
use keyplane_core::observed::AgentFacts;

/// Requeue delay while an object blocks an agent.
const BLOCKED_PERIOD: Duration = Duration::from_mins(1);

/// Lifetime of the bootstrap credential of a control-plane node. Until the agent has reported, a new one replaces an
/// expired one.
const CONTROL_PLANE_TTL: Duration = Duration::from_hours(1);

/// The shortest token lifetime that an API server accepts (`TokenRequestSpec.expirationSeconds`).
const SHORTEST_TTL: Duration = Duration::from_mins(10);

/// The ConfigMap with the CA bundle of the management cluster, which exists in each of its namespaces.
const ROOT_CAS: &str = "kube-root-ca.crt";

impl Agents {
    /// Reconciles the agents' objects of a cluster, and returns the requeue delay. Problems are reported as Events,
    /// because the cluster itself works without agents.
    pub(in crate::controllers) async fn keep(
        &self,
        cluster: &Cluster,
        pools: &[NodePool],
        about: &ObjectReference,
        now: Timestamp,
        context: &Context,
    ) -> Duration {
        if !self.known(cluster).await {
            if cluster.spec.node_agent.is_none() {
                return RESYNC;
            }
            let message = "spec.nodeAgent: Keyplane lacks permissions for the agents' objects: install the chart with \
                           nodeAgents=true";
            context.events.warning(about, reasons::NODE_AGENT_FORBIDDEN, "Keep", message).await;
            return BLOCKED_PERIOD;
        }
        match self.keep_all(cluster, pools, about, now, context).await {
            Ok(next) => next,
            Err(error) => {
                let message = format!("spec.nodeAgent: {error}");
                tracing::warn!(namespace = cluster.namespace, cluster = cluster.name, %error, "agents");
                context.events.warning(about, reasons::NODE_AGENT_BLOCKED, "Keep", &message).await;
                BLOCKED_PERIOD
            }
        }
    }

    async fn keep_all(
        &self,
        cluster: &Cluster,
        pools: &[NodePool],
        about: &ObjectReference,
        now: Timestamp,
        context: &Context,
    ) -> Result<Duration, Error> {
        let nodes = nodes(cluster, pools);
        self.clean(&cluster.namespace, &cluster.name, &nodes, context).await?;
        let Some(agent) = &cluster.spec.node_agent else { return Ok(RESYNC) };
        let facts = self.facts(cluster);
        let mut ca_bundle = None;
        let mut next = RESYNC;
        for (node, first) in &nodes {
            self.keep_objects(agent_objects(cluster, node), cluster, node, context).await?;
            let facts = facts.get(node);
            if ca_bundle.is_none() && !is_settled(facts) {
                ca_bundle = Some(self.ca_bundle(cluster, agent).await?);
            }
            let ca_bundle = ca_bundle.as_deref().unwrap_or_default();
            let wanted = bootstrap(cluster, agent, ca_bundle, node, first.pool.as_deref());
            if let Some(time) =
                self.keep_bootstrap(cluster, node, wanted, first.ttl, facts, now, about, context).await?
            {
                next = next.min(Duration::try_from(time.duration_since(now)).unwrap_or_default());
            }
        }
        Ok(next.max(Duration::from_secs(1)))
    }

    async fn keep_objects(
        &self,
        wanted: AgentObjects,
        cluster: &Cluster,
        node: &str,
        context: &Context,
    ) -> Result<(), Error> {
        let AgentObjects { service_account, role, binding, lease } = wanted;
        let inner = &self.0;
        let same = |a: &ServiceAccount, b: &ServiceAccount| {
            a.automount_service_account_token == b.automount_service_account_token
        };
        self.put(&inner.accounts, service_account, same, cluster, node, context).await?;
        self.put(&inner.roles, role, |a, b| a.rules == b.rules, cluster, node, context).await?;
        self.put(&inner.bindings, binding, |a, b| a.subjects == b.subjects, cluster, node, context).await?;
        self.put(&inner.leases, lease, |_, _| true, cluster, node, context).await
    }

    async fn put<K>(
        &self,
        store: &Store<K>,
        wanted: K,
        same: impl Fn(&K, &K) -> bool,
        cluster: &Cluster,
        node: &str,
        context: &Context,
    ) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Serialize + DeserializeOwned + Clone + Debug + 'static,
    {
        let (kind, name) = (K::kind(&()), wanted.name_any());
        let found = store.get(&ObjectRef::new(&name).within(&cluster.namespace));
        if found.as_ref().is_some_and(|found| !is_of_agent(found.meta(), &cluster.name, node)) {
            return Err(foreign(&kind, &name));
        }
        let is_new = found.is_none();
        let Some(object) = to_write(found.as_deref(), wanted, same) else { return Ok(()) };
        if is_new && self.is_recently_created(format!("{kind} {}/{name}", cluster.namespace)) {
            return Ok(());
        }
        // If a heartbeat has changed the object meanwhile, the next watch event leads to another reconciliation.
        let api: Api<K> = Api::namespaced(self.0.client.clone(), &cluster.namespace);
        match write(&api, &object).await.map_err(Error::api(format!("writing {kind} {name}")))? {
            Written::Done(_) => {
                context.metrics.writes.with_label_values(&[&kind]).inc();
                Ok(())
            }
            Written::Conflict if is_new => Err(foreign(&kind, &name)),
            Written::Conflict => Ok(()),
        }
    }

    async fn ca_bundle(&self, cluster: &Cluster, agent: &NodeAgent) -> Result<String, Error> {
        if let Some(configured) = &agent.certificate_authority {
            return Ok(configured.clone());
        }
        let config_maps: Api<ConfigMap> = Api::namespaced(self.0.client.clone(), &cluster.namespace);
        let found = config_maps.get_opt(ROOT_CAS).await;
        let found = found.map_err(Error::api(format!("reading ConfigMap {ROOT_CAS}")))?;
        let bundle = found.and_then(|found| found.data).and_then(|mut data| data.remove("ca.crt"));
        bundle.ok_or_else(|| {
            Error::Broken(format!("ConfigMap {ROOT_CAS} does not exist: set spec.nodeAgent.certificateAuthority"))
        })
    }

    #[allow(clippy::too_many_arguments)]
    async fn keep_bootstrap(
        &self,
        cluster: &Cluster,
        node: &str,
        wanted: Secret,
        ttl: Duration,
        facts: Option<&AgentFacts>,
        now: Timestamp,
        about: &ObjectReference,
        context: &Context,
    ) -> Result<Option<Timestamp>, Error> {
        let name = wanted.name_any();
        let found = self.0.secrets.get(&ObjectRef::new(&name).within(&cluster.namespace));
        if found.as_ref().is_some_and(|found| !is_of_agent(found.meta(), &cluster.name, node)) {
            return Err(foreign("Secret", &name));
        }
        let secrets: Api<Secret> = Api::namespaced(self.0.client.clone(), &cluster.namespace);
        let remove = async || match &found {
            Some(found) => delete(&secrets, &name, found.uid(), None)
                .await
                .map(drop)
                .map_err(Error::api(format!("deleting Secret {name}"))),
            None => Ok(()),
        };
        match decide(found.as_ref().map(|found| found.meta()), &wanted.metadata, facts, now) {
            Bootstrap::Keep(next) => Ok(next),
            Bootstrap::Remove => {
                remove().await?;
                let note =
                    format!("revoked the bootstrap credential of the agent on {node}: the agent has its own one");
                tracing::info!(namespace = cluster.namespace, cluster = cluster.name, note, "agents");
                context.events.normal(about, reasons::AGENT_CREDENTIAL_REVOKED, "Revoke", &note).await;
                Ok(None)
            }
            Bootstrap::Make => {
                if self.is_recently_created(format!("Secret {}/{name}", cluster.namespace)) {
                    return Ok(None);
                }
                remove().await?;
                self.create_bootstrap(cluster, node, wanted, ttl, &secrets, context).await?;
                let note = format!("created a bootstrap credential for the agent on {node} in Secret {name}");
                tracing::info!(namespace = cluster.namespace, cluster = cluster.name, note, "agents");
                context.events.normal(about, reasons::AGENT_CREDENTIAL_CREATED, "Create", &note).await;
                Ok(None)
            }
        }
    }

    async fn create_bootstrap(
        &self,
        cluster: &Cluster,
        node: &str,
        wanted: Secret,
        ttl: Duration,
        secrets: &Api<Secret>,
        context: &Context,
    ) -> Result<(), Error> {
        let name = wanted.name_any();
        let write_error = || format!("writing Secret {name}");
        let created = match write(secrets, &wanted).await.map_err(Error::api(write_error()))? {
            Written::Done(created) => created,
            Written::Conflict => return Err(foreign("Secret", &name)),
        };
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: i64::try_from(ttl.max(SHORTEST_TTL).as_secs()).ok(),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Secret".to_owned()),
                    name: Some(name.clone()),
                    uid: created.uid(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let account = names::agent_service_account(&cluster.name, node);
        let accounts: Api<ServiceAccount> = Api::namespaced(self.0.client.clone(), &cluster.namespace);
        let answer = accounts.create_token_request(&account, &PostParams::default(), &request).await;
        let answer = answer.map_err(Error::api(format!("creating a token of ServiceAccount {account}")))?;
        let status = answer.status.unwrap_or_default();
        let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err(Error::Broken(format!("the API server returned no token of ServiceAccount {account}")));
        };
        let wanted = with_token(created, token, expires.0);
        match write(secrets, &wanted).await.map_err(Error::api(write_error()))? {
            Written::Done(_) => context.metrics.writes.with_label_values(&["Secret"]).inc_by(2),
            Written::Conflict => return Err(Error::Conflict(format!("Secret {name}"))),
        }
        Ok(())
    }

    /// Deletes all agent objects of a cluster.
    pub(in crate::controllers) async fn remove_all(
        &self,
        namespace: &str,
        cluster: &str,
        context: &Context,
    ) -> Result<(), Error> {
        self.clean(namespace, cluster, &BTreeMap::new(), context).await
    }

    /// Deletes the agent objects of nodes that are not declared any more.
    async fn clean(
        &self,
        namespace: &str,
        cluster: &str,
        nodes: &BTreeMap<String, BootstrapTerms>,
        context: &Context,
    ) -> Result<(), Error> {
        let inner = &self.0;
        self.clean_kind(&inner.bindings, namespace, cluster, nodes, context).await?;
        self.clean_kind(&inner.roles, namespace, cluster, nodes, context).await?;
        self.clean_kind(&inner.accounts, namespace, cluster, nodes, context).await?;
        self.clean_kind(&inner.leases, namespace, cluster, nodes, context).await?;
        for secret in of_cluster(&inner.secrets, namespace, cluster).filter(|secret| is_orphaned(&**secret, nodes)) {
            let secrets: Api<Secret> = Api::namespaced(inner.client.clone(), namespace);
            let name = secret.name_any();
            delete(&secrets, &name, secret.uid(), None).await.map_err(Error::api(format!("deleting Secret {name}")))?;
        }
        Ok(())
    }

    async fn clean_kind<K>(
        &self,
        store: &Store<K>,
        namespace: &str,
        cluster: &str,
        nodes: &BTreeMap<String, BootstrapTerms>,
        context: &Context,
    ) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: DeserializeOwned + Clone + Debug + 'static,
    {
        let api: Api<K> = Api::namespaced(self.0.client.clone(), namespace);
        for object in of_cluster(store, namespace, cluster).filter(|object| is_orphaned(&**object, nodes)) {
            let (kind, name) = (K::kind(&()), object.name_any());
            // The UID precondition protects a recreated object. A resource version would conflict with heartbeats.
            delete(&api, &name, object.uid(), None).await.map_err(Error::api(format!("deleting {kind} {name}")))?;
            context.metrics.writes.with_label_values(&[&kind]).inc();
            tracing::info!(namespace, cluster, kind = %kind, name, "deleted");
        }
        Ok(())
    }
}

fn is_orphaned<K: Resource>(object: &K, nodes: &BTreeMap<String, BootstrapTerms>) -> bool {
    object.labels().get(keys::NODE_LABEL).is_none_or(|node| !nodes.contains_key(node))
}

/// Returns whether the agent has renewed its credential.
fn is_settled(facts: Option<&AgentFacts>) -> bool {
    let report = facts.and_then(|facts| facts.report.as_ref());
    report.is_some_and(|report| report.credential == CredentialKind::Renewed)
}

/// Parameters of an agent's bootstrap credential.
#[derive(Debug, Clone)]
struct BootstrapTerms {
    ttl: Duration,
    /// The pool whose join data contains the credential.
    pool: Option<String>,
}

/// Returns the nodes that may have an agent, with the parameters of their bootstrap credential; none without
/// `spec.nodeAgent`.
fn nodes(cluster: &Cluster, pools: &[NodePool]) -> BTreeMap<String, BootstrapTerms> {
    if cluster.spec.node_agent.is_none() {
        return BTreeMap::new();
    }
    // The NodePool controller reports pools that can't be parsed.
    let staying = pools.iter().filter(|pool| pool.metadata.deletion_timestamp.is_none());
    let pools = staying.filter_map(|pool| Pool::parse(&pool.name_any(), &pool.spec, cluster).ok()?);
    let pools: Vec<_> = pools.collect();
    let of_pool = |pool: &Pool| {
        let first = BootstrapTerms { ttl: pool.token_ttl, pool: Some(pool.name.clone()) };
        pool.machines.iter().map(|machine| (machine.name.clone(), first.clone())).collect::<Vec<_>>()
    };
    let workers = pools.iter().flat_map(of_pool);
    let first = BootstrapTerms { ttl: CONTROL_PLANE_TTL, pool: None };
    let servers = cluster.nodes.iter().map(|node| (node.name.clone(), first.clone()));
    workers.chain(servers).collect()
}

fn foreign(kind: &str, name: &str) -> Error {
    Error::Broken(format!(
        "{kind} {name} exists and does not belong to an agent of this cluster: Keyplane does not change it; rename or \
         delete it"
    ))
}
