//! Changes of encryption at rest: queries the configuration that each API server has loaded, and re-encrypts stored
//! objects.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::reencryption::StorageMigrator;
use super::{SessionSpec, SessionTask, TargetStatus, credentials};
use crate::target_client::CLIENT_VALIDITY;
use keyplane_client::causes;
use keyplane_core::encryption::{Progress, Reencryption, Work, loaded_configuration};
use keyplane_core::{names, plan};

/// Query interval. An API server checks its file every minute.
const PERIOD: Duration = Duration::from_secs(5);
/// Time for a response: an API server of a large cluster has megabytes of metrics.
const METRICS_TIMEOUT: Duration = Duration::from_secs(15);
/// Delay before a failed request is retried.
const RETRY: Duration = Duration::from_secs(5);

/// The encryption task of one target cluster.
pub(super) struct AtRest {
    pub(super) specs: watch::Receiver<Arc<SessionSpec>>,
    pub(super) target_status: TargetStatus,
    pub(super) management: Client,
}

impl SessionTask for AtRest {
    fn specs(&self) -> watch::Receiver<Arc<SessionSpec>> {
        self.specs.clone()
    }

    async fn work(&mut self, spec: &SessionSpec) {
        match &spec.encryption {
            None => {
                self.target_status.update(|facts| facts.encryption = None);
                std::future::pending::<()>().await;
            }
            Some(work) if work.resources.is_empty() => self.query_configurations(spec).await,
            Some(work) => self.reencrypt(spec, work).await,
        }
    }
}

impl AtRest {
    /// Queries the loaded configurations until the client certificate must be renewed.
    async fn query_configurations(&self, spec: &SessionSpec) {
        let renewal = Instant::now() + CLIENT_VALIDITY / 2;
        let clients = match credentials::own_at_each(&self.management, spec).await {
            Ok(clients) => clients,
            Err(unavailable) => {
                tracing::info!(cluster = %self.target_status.object, message = unavailable.message, "API servers not queried");
                return sleep(PERIOD).await;
            }
        };
        while Instant::now() < renewal {
            let answers = clients.iter().map(async |(node, client)| {
                let answer = timeout(METRICS_TIMEOUT, loaded(client)).await;
                let silent = || Err(format!("its API server did not answer within {} s", METRICS_TIMEOUT.as_secs()));
                (node.clone(), answer.unwrap_or_else(|_| silent()))
            });
            let configurations = join_all(answers).await.into_iter().collect();
            self.target_status.update(|facts| facts.encryption.get_or_insert_default().configurations = configurations);
            sleep(PERIOD).await;
        }
    }

    /// Re-encrypts the remaining objects, with retries.
    async fn reencrypt(&self, spec: &SessionSpec, work: &Work) {
        let wait = work.begins.duration_since(Timestamp::now());
        sleep(Duration::try_from(wait).unwrap_or_default()).await;
        let name = names::encryption_secret(&spec.cluster.name);
        let remembered = match credentials::read(&self.management, spec, &name).await {
            Ok(secret) => plan::reencryption(&secret),
            Err(unavailable) => {
                self.report_progress(work, Progress::default(), Some(unavailable.message));
                return sleep(RETRY).await;
            }
        };
        // If the Secret differs, a new session spec will follow.
        let Some((_, mut progress)) = remembered.filter(|(since, _)| *since == work.since) else {
            return sleep(RETRY).await;
        };
        loop {
            let trouble = match credentials::own(&self.management, spec).await {
                Err(unavailable) => unavailable.message,
                Ok(clients) => {
                    let mut migrator = StorageMigrator::new(clients.shared, &work.resources);
                    match migrator
                        .migrate(&mut progress, |progress| self.report_progress(work, progress.clone(), None))
                        .await
                    {
                        Ok(()) => return std::future::pending().await,
                        Err(trouble) => trouble,
                    }
                }
            };
            tracing::info!(cluster = %self.target_status.object, trouble, "re-encryption failed and is retried");
            self.report_progress(work, progress.clone(), Some(trouble));
            sleep(RETRY).await;
        }
    }

    fn report_progress(&self, work: &Work, progress: Progress, trouble: Option<String>) {
        let reencryption = Reencryption { since: work.since, progress, trouble };
        self.target_status.update(|facts| facts.encryption.get_or_insert_default().reencryption = Some(reencryption));
    }
}

/// Reads the hash of the configuration file that an API server has loaded.
async fn loaded(client: &Client) -> Result<String, String> {
    let request = http::Request::get("/metrics").body(vec![]).map_err(|error| error.to_string())?;
    let answer = client.request_stream(request).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 403 => {
            "its API server does not permit access to its metrics yet".to_owned()
        }
        kube::Error::Api(status) => format!("its API server answered: {}", status.message),
        other => format!("its API server does not answer: {}", causes(&other)),
    })?;
    let mut lines = answer.lines();
    let broken = |error: std::io::Error| format!("reading the metrics of its API server failed: {error}");
    while let Some(line) = lines.try_next().await.map_err(broken)? {
        if let Some(hash) = loaded_configuration(&line) {
            return Ok(hash.to_owned());
        }
    }
    Err("its API server has no encryption configuration".to_owned())
}
