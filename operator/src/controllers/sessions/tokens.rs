//! Makes and revokes the pools' bootstrap tokens in a target, and keeps the join data in the management cluster that
//! holds them. When that is to be done is [`keyplane_core::join::token`]'s to say.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, Resource};

use keyplane_crds::{Layout, reasons};

use super::Brief;
use crate::metrics::Metrics;
use keyplane_client::FIELD_MANAGER;
use keyplane_client::causes;
use keyplane_client::events::Events;
use keyplane_client::write::{Written, write};
use keyplane_core::agent_access::objects::{agent_files, is_of_agent};
use keyplane_core::join::objects::{bootstrap, bootstrap_secret, is_of_pool, secret_to_write};
use keyplane_core::join::state::{NodeState, TokenState, is_any_missing};
use keyplane_core::join::token::{Decision, NAMESPACE, Terms, Token, decide, ids, secret_name};
use keyplane_core::join::{AgentFiles, Pool};
use keyplane_core::names;

/// Random bytes for one secret: 16 letters of which each takes a byte, and a few bytes are not used.
const RANDOM_BYTES: usize = 64;

/// The tokens of a cluster's pools.
pub(super) struct Tokens<'a> {
    in_target: Api<Secret>,
    join_data: Api<Secret>,
    brief: &'a Brief,
    events: &'a Events,
    metrics: &'a Metrics,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(
        target: Client,
        management: Client,
        brief: &'a Brief,
        events: &'a Events,
        metrics: &'a Metrics,
    ) -> Self {
        Self {
            in_target: Api::namespaced(target, NAMESPACE),
            join_data: Api::namespaced(management, &brief.cluster.namespace),
            brief,
            events,
            metrics,
        }
    }

    /// Does what is to be done now, and says how each pool's token stands.
    pub(super) async fn keep(
        &self,
        nodes: &BTreeMap<String, NodeState>,
        now: Timestamp,
    ) -> BTreeMap<String, TokenState> {
        let mut states = BTreeMap::new();
        for pool in &self.brief.workers {
            let needed = pool.joins_by_token(&self.brief.cluster) && is_any_missing(pool, nodes, now);
            let kept = self.keep_pool(&pool.name, pool.token_ttl, needed.then_some(pool), now).await;
            states.insert(pool.name.clone(), kept.unwrap_or_else(TokenState::Failed));
        }
        for pool in &self.brief.leaving {
            // How long a token would live plays no part where none is made.
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
        let namespace = self.brief.cluster.namespace.clone();
        let ids = ids(&namespace, name);
        let terms = Terms { namespace, pool: name.to_owned(), ttl };
        let found = [self.find(&ids[0]).await?, self.find(&ids[1]).await?];
        let decision = decide(&terms, &found, needed.is_some(), now);
        for (id, secret) in ids.iter().zip(&found) {
            if let Some(secret) = secret.as_ref().filter(|_| decision.delete.contains(id)) {
                delete(&self.in_target, secret).await?;
                self.tell(name, reasons::TOKEN_REVOKED, "Revoke", "revoked a bootstrap token").await;
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
                Ok(TokenState::Good(expires))
            }
            (Some(_), None) => Err(format!(
                "Secrets {} in {NAMESPACE} of the target are not Keyplane's: delete them there",
                decision.foreign.join(" and ")
            )),
            (None, _) => {
                self.take_join_data_away(name).await?;
                Ok(TokenState::None)
            }
        }
    }

    async fn find(&self, id: &str) -> Result<Option<Secret>, String> {
        let name = secret_name(id);
        self.in_target
            .get_opt(&name)
            .await
            .map_err(|error| told(&format!("reading Secret {name} of the target"), &error))
    }

    async fn create(&self, terms: &Terms, id: &str, now: Timestamp) -> Result<(Token, Timestamp), String> {
        let mut random = [0_u8; RANDOM_BYTES];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gave no random numbers".to_owned())?;
        let token = Token::from_random(id, &random).ok_or("the system gave strange random numbers")?;
        let secret = terms.secret(id, &token, now);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let created = self.in_target.create(&params, &secret).await;
        // The answer holds the token: it is not looked at.
        created.map_err(|error| told("making a bootstrap token in the target", &error))?;
        self.tell(&terms.pool, reasons::TOKEN_CREATED, "Create", "made a bootstrap token").await;
        Ok((token, terms.expires(now)))
    }

    async fn write_join_data(&self, pool: &Pool, token: &Token, expires: Timestamp) -> Result<(), String> {
        let cluster = &self.brief.cluster;
        let name = bootstrap_secret(&cluster.name, &pool.name);
        let found = self.read_join_data(&name).await?;
        if found.as_ref().is_some_and(|found| !is_of_pool(found.meta(), &cluster.name, &pool.name)) {
            return Err(format!("Secret {name} exists and is not Keyplane's: it is left alone; rename or delete it"));
        }
        let wanted = bootstrap(cluster, pool, &self.brief.trust, token, expires, &self.agents(pool).await?);
        let Some(wanted) = secret_to_write(found.as_ref(), wanted) else { return Ok(()) };
        match write(&self.join_data, &wanted).await.map_err(|error| told(&format!("writing Secret {name}"), &error))? {
            Written::Done(_) => {
                self.metrics.writes.with_label_values(&["Secret"]).inc();
                self.tell(&pool.name, reasons::WRITTEN, "Write", &format!("wrote the join data to Secret {name}"))
                    .await;
                Ok(())
            }
            Written::Conflict => Err(format!("Secret {name} was changed by somebody else meanwhile")),
        }
    }

    /// With what the agents of the pool's machines begin. Those of machines with keys of Keyplane's are not for a pool's join
    /// data: whoever reads it could read the keys.
    async fn agents(&self, pool: &Pool) -> Result<Vec<AgentFiles>, String> {
        let cluster = &self.brief.cluster;
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

    async fn take_join_data_away(&self, pool: &str) -> Result<(), String> {
        let cluster = &self.brief.cluster.name;
        let name = bootstrap_secret(cluster, pool);
        let found = self.read_join_data(&name).await?;
        if let Some(found) = found.filter(|found| is_of_pool(found.meta(), cluster, pool)) {
            delete(&self.join_data, &found).await?;
            self.metrics.writes.with_label_values(&["Secret"]).inc();
        }
        Ok(())
    }

    async fn read_join_data(&self, name: &str) -> Result<Option<Secret>, String> {
        self.join_data.get_opt(name).await.map_err(|error| told(&format!("reading Secret {name}"), &error))
    }

    async fn tell(&self, pool: &str, reason: &str, action: &str, what: &str) {
        let note = format!("NodePool {pool}: {what}");
        tracing::info!(namespace = self.brief.cluster.namespace, cluster = self.brief.cluster.name, note, "tokens");
        self.events.normal(&self.brief.reference, reason, action, &note).await;
    }
}

/// Deletes the very object that was seen.
async fn delete(api: &Api<Secret>, found: &Secret) -> Result<(), String> {
    let name = found.metadata.name.clone().unwrap_or_default();
    let uid = found.metadata.uid.clone();
    let preconditions = Some(Preconditions { uid, resource_version: found.metadata.resource_version.clone() });
    match api.delete(&name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(told(&format!("deleting Secret {name}"), &error)),
    }
}

fn told(what: &str, error: &kube::Error) -> String {
    format!("{what}: {}", causes(error))
}
