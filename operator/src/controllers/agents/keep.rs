//! Makes, puts right and takes away what agents have.

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

/// What is in the way is looked at again after this time.
const BLOCKED_PERIOD: Duration = Duration::from_mins(1);

/// How long the first credential of a control-plane machine lives; it is followed by another one while the agent has not
/// been there.
const CONTROL_PLANE_TTL: Duration = Duration::from_hours(1);

/// The shortest life that an API server gives a token (`TokenRequestSpec.expirationSeconds`).
const SHORTEST_TTL: Duration = Duration::from_mins(10);

/// The ConfigMap with the authorities of the management cluster, which is in each of its namespaces.
const ROOT_AUTHORITIES: &str = "kube-root-ca.crt";

impl Agents {
    /// Keeps what the agents of a cluster have, and says when to look again. What is in the way is told in an Event: the
    /// cluster itself goes on without agents.
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
            let message = "spec.nodeAgent: Keyplane may not look after agents' objects: install the chart with \
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
        let machines = machines(cluster, pools);
        self.clean(&cluster.namespace, &cluster.name, &machines, context).await?;
        let Some(agent) = &cluster.spec.node_agent else { return Ok(RESYNC) };
        let facts = self.facts(cluster);
        let mut authorities = None;
        let mut next = RESYNC;
        for (node, first) in &machines {
            self.keep_objects(agent_objects(cluster, node), cluster, node, context).await?;
            let facts = facts.get(node);
            if authorities.is_none() && !is_settled(facts) {
                authorities = Some(self.authorities(cluster, agent).await?);
            }
            let authorities = authorities.as_deref().unwrap_or_default();
            let wanted = bootstrap(cluster, agent, authorities, node, first.pool.as_deref());
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
        if is_new && self.is_on_its_way(format!("{kind} {}/{name}", cluster.namespace)) {
            return Ok(());
        }
        // What a heartbeat has put there meanwhile is read again with the next event.
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

    async fn authorities(&self, cluster: &Cluster, agent: &NodeAgent) -> Result<String, Error> {
        if let Some(given) = &agent.certificate_authority {
            return Ok(given.clone());
        }
        let config_maps: Api<ConfigMap> = Api::namespaced(self.0.client.clone(), &cluster.namespace);
        let found = config_maps.get_opt(ROOT_AUTHORITIES).await;
        let found = found.map_err(Error::api(format!("reading ConfigMap {ROOT_AUTHORITIES}")))?;
        let bundle = found.and_then(|found| found.data).and_then(|mut data| data.remove("ca.crt"));
        bundle.ok_or_else(|| {
            Error::Broken(format!(
                "there is no ConfigMap {ROOT_AUTHORITIES}: write spec.nodeAgent.certificateAuthority"
            ))
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
                let note = format!("{node}: its agent has a credential of its own; the first one is revoked");
                tracing::info!(namespace = cluster.namespace, cluster = cluster.name, note, "agents");
                context.events.normal(about, reasons::AGENT_CREDENTIAL_REVOKED, "Revoke", &note).await;
                Ok(None)
            }
            Bootstrap::Make => {
                if self.is_on_its_way(format!("Secret {}/{name}", cluster.namespace)) {
                    return Ok(None);
                }
                remove().await?;
                self.make_bootstrap(cluster, node, wanted, ttl, &secrets, context).await?;
                let note = format!("{node}: made a credential for its agent, in Secret {name}");
                tracing::info!(namespace = cluster.namespace, cluster = cluster.name, note, "agents");
                context.events.normal(about, reasons::AGENT_CREDENTIAL_CREATED, "Create", &note).await;
                Ok(None)
            }
        }
    }

    async fn make_bootstrap(
        &self,
        cluster: &Cluster,
        node: &str,
        wanted: Secret,
        ttl: Duration,
        secrets: &Api<Secret>,
        context: &Context,
    ) -> Result<(), Error> {
        let name = wanted.name_any();
        let told = || format!("writing Secret {name}");
        let made = match write(secrets, &wanted).await.map_err(Error::api(told()))? {
            Written::Done(made) => made,
            Written::Conflict => return Err(foreign("Secret", &name)),
        };
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: i64::try_from(ttl.max(SHORTEST_TTL).as_secs()).ok(),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Secret".to_owned()),
                    name: Some(name.clone()),
                    uid: made.uid(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let account = names::agent_service_account(&cluster.name, node);
        let accounts: Api<ServiceAccount> = Api::namespaced(self.0.client.clone(), &cluster.namespace);
        let answer = accounts.create_token_request(&account, &PostParams::default(), &request).await;
        let answer = answer.map_err(Error::api(format!("making a token of ServiceAccount {account}")))?;
        let status = answer.status.unwrap_or_default();
        let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err(Error::Broken(format!("no token of ServiceAccount {account} was sent")));
        };
        let wanted = with_token(made, token, expires.0);
        match write(secrets, &wanted).await.map_err(Error::api(told()))? {
            Written::Done(_) => context.metrics.writes.with_label_values(&["Secret"]).inc_by(2),
            Written::Conflict => return Err(Error::Conflict(format!("Secret {name}"))),
        }
        Ok(())
    }

    /// Takes away all that the agents of a cluster have.
    pub(in crate::controllers) async fn remove_all(
        &self,
        namespace: &str,
        cluster: &str,
        context: &Context,
    ) -> Result<(), Error> {
        self.clean(namespace, cluster, &BTreeMap::new(), context).await
    }

    /// Takes away what belongs to no machine any more.
    async fn clean(
        &self,
        namespace: &str,
        cluster: &str,
        machines: &BTreeMap<String, First>,
        context: &Context,
    ) -> Result<(), Error> {
        let inner = &self.0;
        self.clean_kind(&inner.bindings, namespace, cluster, machines, context).await?;
        self.clean_kind(&inner.roles, namespace, cluster, machines, context).await?;
        self.clean_kind(&inner.accounts, namespace, cluster, machines, context).await?;
        self.clean_kind(&inner.leases, namespace, cluster, machines, context).await?;
        for secret in of_cluster(&inner.secrets, namespace, cluster).filter(|secret| is_left(&**secret, machines)) {
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
        machines: &BTreeMap<String, First>,
        context: &Context,
    ) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: DeserializeOwned + Clone + Debug + 'static,
    {
        let api: Api<K> = Api::namespaced(self.0.client.clone(), namespace);
        for object in of_cluster(store, namespace, cluster).filter(|object| is_left(&**object, machines)) {
            let (kind, name) = (K::kind(&()), object.name_any());
            // Only the very object that was seen: a heartbeat may have changed it, another one it is not.
            delete(&api, &name, object.uid(), None).await.map_err(Error::api(format!("deleting {kind} {name}")))?;
            context.metrics.writes.with_label_values(&[&kind]).inc();
            tracing::info!(namespace, cluster, kind = %kind, name, "deleted");
        }
        Ok(())
    }
}

fn is_left<K: Resource>(object: &K, machines: &BTreeMap<String, First>) -> bool {
    object.labels().get(keys::NODE_LABEL).is_none_or(|node| !machines.contains_key(node))
}

/// Whether the agent has a credential of its own.
fn is_settled(facts: Option<&AgentFacts>) -> bool {
    let report = facts.and_then(|facts| facts.report.as_ref());
    report.is_some_and(|report| report.credential == CredentialKind::Renewed)
}

/// What is to be said of an agent's first credential.
#[derive(Debug, Clone)]
struct First {
    /// How long it lives.
    ttl: Duration,
    /// Whose join data it is in.
    pool: Option<String>,
}

/// The machines that may have an agent, and how long their first credential lives; none if none is wanted.
fn machines(cluster: &Cluster, pools: &[NodePool]) -> BTreeMap<String, First> {
    if cluster.spec.node_agent.is_none() {
        return BTreeMap::new();
    }
    // What can't be read is told by the pool's own controller.
    let staying = pools.iter().filter(|pool| pool.metadata.deletion_timestamp.is_none());
    let pools = staying.filter_map(|pool| Pool::parse(&pool.name_any(), &pool.spec, cluster).ok()?);
    let pools: Vec<_> = pools.collect();
    let of_pool = |pool: &Pool| {
        let first = First { ttl: pool.token_ttl, pool: Some(pool.name.clone()) };
        pool.machines.iter().map(|machine| (machine.name.clone(), first.clone())).collect::<Vec<_>>()
    };
    let workers = pools.iter().flat_map(of_pool);
    let first = First { ttl: CONTROL_PLANE_TTL, pool: None };
    let servers = cluster.nodes.iter().map(|node| (node.name.clone(), first.clone()));
    workers.chain(servers).collect()
}

fn foreign(kind: &str, name: &str) -> Error {
    Error::Broken(format!(
        "{kind} {name} exists and is not that of a machine's agent of this cluster: it is left alone; rename or delete it"
    ))
}
