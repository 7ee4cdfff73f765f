//! Creates and revokes the pools' bootstrap tokens in a target cluster, and writes the join data with the tokens in the
//! management cluster. [`keyplane_core::join::token`] decides when.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, Resource};

use keyplane_crds::{Layout, reasons};

use super::SessionSpec;
use crate::metrics::Metrics;
use keyplane_client::events::Events;
use keyplane_client::write::{Written, write};
use keyplane_client::{FIELD_MANAGER, causes};
use keyplane_core::agent_access::objects::{agent_files, is_of_agent};
use keyplane_core::join::objects::{bootstrap, bootstrap_secret, is_of_pool, secret_to_write};
use keyplane_core::join::state::{NodeState, TokenState, is_any_missing};
use keyplane_core::join::token::{Decision, NAMESPACE, Token, TokenParameters, decide, ids, secret_name};
use keyplane_core::join::{AgentFiles, Pool};
use keyplane_core::names;

/// Random bytes for one token secret. Each of its 16 characters needs one byte, and a few bytes are skipped.
const RANDOM_BYTES: usize = 64;

/// The bootstrap tokens of a cluster's pools.
pub(super) struct Tokens<'a> {
    target_secrets: Api<Secret>,
    join_data: Api<Secret>,
    spec: &'a SessionSpec,
    events: &'a Events,
    metrics: &'a Metrics,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(
        target: Client,
        management: Client,
        spec: &'a SessionSpec,
        events: &'a Events,
        metrics: &'a Metrics,
    ) -> Self {
        Self {
            target_secrets: Api::namespaced(target, NAMESPACE),
            join_data: Api::namespaced(management, &spec.cluster.namespace),
            spec,
            events,
            metrics,
        }
    }

    /// Creates and revokes tokens; returns the state of each pool's token.
    pub(super) async fn keep(
        &self,
        nodes: &BTreeMap<String, NodeState>,
        now: Timestamp,
    ) -> BTreeMap<String, TokenState> {
        let mut states = BTreeMap::new();
        for pool in &self.spec.workers {
            let needed = pool.joins_by_token(&self.spec.cluster) && is_any_missing(pool, nodes, now);
            let kept = self.keep_pool(&pool.name, pool.token_ttl, needed.then_some(pool), now).await;
            states.insert(pool.name.clone(), kept.unwrap_or_else(TokenState::Failed));
        }
        for pool in &self.spec.leaving {
            // The lifetime has no meaning, because no token is created.
            let kept = self.keep_pool(pool, std::time::Duration::ZERO, None, now).await;
            states.insert(pool.clone(), kept.unwrap_or_else(TokenState::Failed));
        }
        states
    }

    async fn keep_pool(
        &self,
        name: &str,
        ttl: std::time::Duration,
        needed: Option<&Pool>,
        now: Timestamp,
    ) -> Result<TokenState, String> {
        let namespace = self.spec.cluster.namespace.clone();
        let ids = ids(&namespace, name);
        let terms = TokenParameters { namespace, pool: name.to_owned(), ttl };
        let found = [self.find(&ids[0]).await?, self.find(&ids[1]).await?];
        let decision = decide(&terms, &found, needed.is_some(), now);
        for (id, secret) in ids.iter().zip(&found) {
            if let Some(secret) = secret.as_ref().filter(|_| decision.delete.contains(id)) {
                delete(&self.target_secrets, secret).await?;
                self.record(name, reasons::TOKEN_REVOKED, "Revoke", "revoked a bootstrap token").await;
            }
        }
        let token = match &decision {
            Decision { create: Some(id), .. } => Some(self.create(&terms, id, now).await?),
            Decision { keep: Some(kept), .. } => Some(kept.clone()),
            _ => None,
        };
        match (needed, token) {
            (Some(pool), Some((token, expires))) => {
                self.write_join_data(pool, &token, expires).await?;
                Ok(TokenState::Valid(expires))
            }
            (Some(_), None) => Err(format!(
                "Secrets {} in namespace {NAMESPACE} of the target cluster are not Keyplane's: delete them",
                decision.foreign.join(" and ")
            )),
            (None, _) => {
                self.delete_join_data(name).await?;
                Ok(TokenState::None)
            }
        }
    }

    async fn find(&self, id: &str) -> Result<Option<Secret>, String> {
        let name = secret_name(id);
        self.target_secrets
            .get_opt(&name)
            .await
            .map_err(|error| describe(&format!("reading Secret {name} of the target cluster"), &error))
    }

    async fn create(&self, terms: &TokenParameters, id: &str, now: Timestamp) -> Result<(Token, Timestamp), String> {
        let mut random = [0_u8; RANDOM_BYTES];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| "the operating system returned no random numbers".to_owned())?;
        let token = Token::from_random(id, &random)
            .ok_or("the random bytes contain too few usable ones: the creation is retried")?;
        let secret = terms.secret(id, &token, now);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let created = self.target_secrets.create(&params, &secret).await;
        // The response contains the token, so it is dropped.
        created.map_err(|error| describe("creating a bootstrap token in the target cluster", &error))?;
        self.record(&terms.pool, reasons::TOKEN_CREATED, "Create", "created a bootstrap token").await;
        Ok((token, terms.expires(now)))
    }

    async fn write_join_data(&self, pool: &Pool, token: &Token, expires: Timestamp) -> Result<(), String> {
        let cluster = &self.spec.cluster;
        let name = bootstrap_secret(&cluster.name, &pool.name);
        let found = self.read_join_data(&name).await?;
        if found.as_ref().is_some_and(|found| !is_of_pool(found.meta(), &cluster.name, &pool.name)) {
            return Err(format!(
                "Secret {name} exists and is not Keyplane's: Keyplane does not change it; rename or delete it"
            ));
        }
        let wanted = bootstrap(cluster, pool, &self.spec.trust, token, expires, &self.agents(pool).await?);
        let Some(wanted) = secret_to_write(found.as_ref(), wanted) else { return Ok(()) };
        match write(&self.join_data, &wanted)
            .await
            .map_err(|error| describe(&format!("writing Secret {name}"), &error))?
        {
            Written::Done(_) => {
                self.metrics.writes.with_label_values(&["Secret"]).inc();
                self.record(&pool.name, reasons::WRITTEN, "Write", &format!("wrote the join data to Secret {name}"))
                    .await;
                Ok(())
            }
            Written::Conflict => Err(format!("Secret {name} was changed by another client at the same time")),
        }
    }

    /// Returns the bootstrap files of the agents of the pool's nodes. Agents of nodes with keys of Keyplane are left
    /// out: a reader of the pool's join data could read these keys.
    async fn agents(&self, pool: &Pool) -> Result<Vec<AgentFiles>, String> {
        let cluster = &self.spec.cluster;
        let mut agents = vec![];
        if cluster.spec.node_agent.is_none() || cluster.layout() != Layout::StaticPod {
            return Ok(agents);
        }
        for machine in &pool.machines {
            let name = names::agent_bootstrap_secret(&cluster.name, &machine.name);
            let found = self.read_join_data(&name).await?;
            let found = found.filter(|found| is_of_agent(found.meta(), &cluster.name, &machine.name));
            if let Some(files) = found.as_ref().and_then(agent_files) {
                agents.push(AgentFiles { machine: machine.name.clone(), files });
            }
        }
        Ok(agents)
    }

    async fn delete_join_data(&self, pool: &str) -> Result<(), String> {
        let cluster = &self.spec.cluster.name;
        let name = bootstrap_secret(cluster, pool);
        let found = self.read_join_data(&name).await?;
        if let Some(found) = found.filter(|found| is_of_pool(found.meta(), cluster, pool)) {
            delete(&self.join_data, &found).await?;
            self.metrics.writes.with_label_values(&["Secret"]).inc();
        }
        Ok(())
    }

    async fn read_join_data(&self, name: &str) -> Result<Option<Secret>, String> {
        self.join_data.get_opt(name).await.map_err(|error| describe(&format!("reading Secret {name}"), &error))
    }

    async fn record(&self, pool: &str, reason: &str, action: &str, what: &str) {
        let note = format!("NodePool {pool}: {what}");
        tracing::info!(namespace = self.spec.cluster.namespace, cluster = self.spec.cluster.name, note, "tokens");
        self.events.normal(&self.spec.reference, reason, action, &note).await;
    }
}

/// Deletes a Secret, unless it has changed since it was read.
async fn delete(api: &Api<Secret>, found: &Secret) -> Result<(), String> {
    let name = found.metadata.name.clone().unwrap_or_default();
    let uid = found.metadata.uid.clone();
    let preconditions = Some(Preconditions { uid, resource_version: found.metadata.resource_version.clone() });
    match api.delete(&name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(describe(&format!("deleting Secret {name}"), &error)),
    }
}

fn describe(what: &str, error: &kube::Error) -> String {
    format!("{what}: {}", causes(error))
}
