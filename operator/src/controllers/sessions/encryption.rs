//! Encryption at rest, while it changes: asks each API server which configuration it has loaded, and has objects written
//! anew.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::credentials;
use super::rewriting::Rewriter;
use super::{Brief, Briefed, Findings};
use crate::target_client::CLIENT_VALIDITY;
use keyplane_client::causes;
use keyplane_core::encryption::{Progress, Rewriting, Work, loaded_configuration};
use keyplane_core::names;
use keyplane_core::objects;
use keyplane_core::plan;

/// How often each API server is asked. It looks at its file every minute.
const PERIOD: Duration = Duration::from_secs(5);
/// How long an answer may take: an API server of a large cluster has megabytes of metrics.
const PATIENCE: Duration = Duration::from_secs(15);
/// How soon what was refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The task's parts.
pub(super) struct AtRest {
    pub(super) briefs: watch::Receiver<Arc<Brief>>,
    pub(super) findings: Findings,
    pub(super) management: Client,
}

impl Briefed for AtRest {
    fn briefs(&self) -> watch::Receiver<Arc<Brief>> {
        self.briefs.clone()
    }

    async fn work(&mut self, brief: &Brief) {
        match &brief.encryption {
            None => {
                self.findings.learn(|facts| facts.encryption = None);
                std::future::pending::<()>().await;
            }
            Some(work) if work.resources.is_empty() => self.ask(brief).await,
            Some(work) => self.rewrite(brief, work).await,
        }
    }
}

impl AtRest {
    /// Asks until the client certificate is to be renewed.
    async fn ask(&self, brief: &Brief) {
        let renewal = Instant::now() + CLIENT_VALIDITY / 2;
        let clients = match credentials::own_at_each(&self.management, brief).await {
            Ok(clients) => clients,
            Err(unavailable) => {
                tracing::info!(cluster = %self.findings.object, message = unavailable.message, "not asked");
                return sleep(PERIOD).await;
            }
        };
        while Instant::now() < renewal {
            let answers = clients.iter().map(async |(node, client)| {
                let answer = timeout(PATIENCE, loaded(client)).await;
                let silent = || Err(format!("its API server did not answer within {} s", PATIENCE.as_secs()));
                (node.clone(), answer.unwrap_or_else(|_| silent()))
            });
            let configurations = join_all(answers).await.into_iter().collect();
            self.findings.learn(|facts| facts.encryption.get_or_insert_default().configurations = configurations);
            sleep(PERIOD).await;
        }
    }

    /// Has everything written anew that is left, as often as it takes.
    async fn rewrite(&self, brief: &Brief, work: &Work) {
        let wait = work.begins.duration_since(Timestamp::now());
        sleep(Duration::try_from(wait).unwrap_or_default()).await;
        let name = names::encryption_secret(&brief.cluster.name);
        let remembered = match credentials::read(&self.management, brief, &name).await {
            Ok(secret) => plan::rewriting(&secret),
            Err(unavailable) => {
                self.learn(work, Progress::default(), Some(unavailable.message));
                return sleep(RETRY).await;
            }
        };
        // If it says something else, another brief is on its way.
        let Some((_, mut progress)) = remembered.filter(|(since, _)| *since == work.since) else {
            return sleep(RETRY).await;
        };
        loop {
            let trouble = match credentials::own(&self.management, brief).await {
                Err(unavailable) => unavailable.message,
                Ok(clients) => {
                    let mut rewriter = Rewriter::new(clients.shared, &work.resources);
                    match rewriter.go_on(&mut progress, |progress| self.learn(work, progress.clone(), None)).await {
                        Ok(()) => return std::future::pending().await,
                        Err(trouble) => trouble,
                    }
                }
            };
            tracing::info!(cluster = %self.findings.object, trouble, "not everything is written anew yet");
            self.learn(work, progress.clone(), Some(trouble));
            sleep(RETRY).await;
        }
    }

    fn learn(&self, work: &Work, progress: Progress, trouble: Option<String>) {
        let rewriting = Rewriting { since: work.since, progress, trouble };
        self.findings.learn(|facts| facts.encryption.get_or_insert_default().rewriting = Some(rewriting));
    }
}

/// The hash of the file that an API server has loaded.
async fn loaded(client: &Client) -> Result<String, String> {
    let request = http::Request::get("/metrics").body(vec![]).map_err(|error| error.to_string())?;
    let answer = client.request_stream(request).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 403 => "its API server does not show its metrics yet".to_owned(),
        kube::Error::Api(status) => format!("its API server answered: {}", status.message),
        other => format!("its API server does not answer: {}", causes(&other)),
    })?;
    let mut lines = answer.lines();
    let broken = |error: std::io::Error| format!("its API server's answer broke off: {error}");
    while let Some(line) = lines.try_next().await.map_err(broken)? {
        if let Some(hash) = loaded_configuration(&line) {
            return Ok(hash.to_owned());
        }
    }
    Err("its API server has no encryption configuration".to_owned())
}
