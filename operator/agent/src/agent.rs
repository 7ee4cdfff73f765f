//! The agent's main loop: watches the node's objects, applies them, reports, and renews the credential.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::credential::{Token, renew};
use super::files::Root;
use super::kubelet::{Move, Pair};
use super::machine::LocalNode;
use super::management::{Fetched, Management, ManagementError};
use super::restart::Commands;
use crate::options::Options;
use keyplane_client::backoff;
use keyplane_core::agent_access::settings::{DEFAULT_FILE, FileSettings, Settings};

/// Interval of reports, also without a change. The operator takes an agent for silent after five missing reports.
const HEARTBEAT: Duration = Duration::from_mins(1);

/// Delay after a change, because both objects are often written one right after the other.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// Runs the agent until a signal arrives, or once.
///
/// # Errors
/// The settings are incomplete, or, with `--once` or `--from`, a step failed.
pub async fn run(options: Options) -> Result<(), String> {
    let root = Root(options.root.clone());
    let commands = Commands {
        kubelet: options.kubelet_restart_command.clone(),
        unit: options.unit_restart_command.clone(),
        kubelet_health: options.kubelet_health.clone(),
        none: options.no_restarts,
    };
    let node = LocalNode::new(root.clone(), commands);
    if !options.from.is_empty() {
        return apply_from(&options.from, node).await;
    }
    let settings = settings(&options, &root)?;
    let mut agent = Agent { settings, root, node, failures: 0, renewal_error: None, moving: None, move_error: None };
    if options.once {
        return agent.once().await;
    }
    agent.node.waits_for_permit = true;
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    tokio::select! {
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
        never = agent.run_sessions() => match never {},
    }
}

fn settings(options: &Options, root: &Root) -> Result<Settings, String> {
    let path = options.config.clone().unwrap_or_else(|| DEFAULT_FILE.to_owned());
    let file = match root.read(&path).map_err(|error| format!("{path}: {error}"))? {
        Some(text) => {
            let text = String::from_utf8_lossy(&text).into_owned();
            serde_saphyr::from_str::<FileSettings>(&text).map_err(|error| format!("{path}: {error}"))?
        }
        None if options.config.is_some() => return Err(format!("--config {path}: the file does not exist")),
        None => FileSettings::default(),
    };
    options.settings().or(file).complete()
}

/// Applies objects from local files, for a node that does not reach the management cluster.
async fn apply_from(files: &[std::path::PathBuf], mut node: LocalNode) -> Result<(), String> {
    let (mut config_map, mut secret) = (None, None);
    for path in files {
        match object(path)? {
            Object::ConfigMap(found) => config_map = Some(found),
            Object::Secret(found) => secret = Some(found),
        }
    }
    node.sync(Fetched::of(config_map, secret), Timestamp::now()).await;
    let report = node.report(keyplane_core::agent_report::CredentialKind::Bootstrap, vec![], None);
    if report.errors.is_empty() { Ok(()) } else { Err(report.errors.join("; ")) }
}

enum Object {
    ConfigMap(ConfigMap),
    Secret(Secret),
}

fn object(path: &Path) -> Result<Object, String> {
    let error_with_path = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| error_with_path(&error))?;
    // The text may be a Secret: the parser's error could quote it, so the error is dropped.
    let value: serde_json::Value =
        serde_saphyr::from_str(&text).map_err(|_| error_with_path(&"the file is neither YAML nor JSON"))?;
    let wrong = |_| error_with_path(&"the object can't be parsed");
    match value["kind"].as_str() {
        Some("ConfigMap") => serde_json::from_value(value).map(Object::ConfigMap).map_err(wrong),
        Some("Secret") => serde_json::from_value(value).map(Object::Secret).map_err(wrong),
        _ => Err(error_with_path(&"the object is neither a Secret nor a ConfigMap")),
    }
}

/// A running task that obtains kubelet certificates of the new CA.
struct Moving {
    target: Move,
    waits: watch::Receiver<Option<String>>,
    task: JoinHandle<Result<Vec<Pair>, String>>,
}

enum MoveEvent {
    Waiting,
    Finished(Move, Result<Vec<Pair>, String>),
}

struct Agent {
    settings: Settings,
    root: Root,
    node: LocalNode,
    /// Consecutive failures.
    failures: u32,
    /// The error of the last credential renewal.
    renewal_error: Option<String>,
    moving: Option<Moving>,
    /// The error of the last move, and the time of the next attempt.
    move_error: Option<(String, Timestamp)>,
}

enum Never {}

impl Agent {
    async fn once(&mut self) -> Result<(), String> {
        let mut token = Token::read(&self.settings, &self.root)?;
        let mut client = token.client(&self.settings, &self.root)?;
        if token.claims.renewal_time() <= Timestamp::now() {
            renew(client, &self.settings, &self.root).await?;
            token = Token::read(&self.settings, &self.root)?;
            client = token.client(&self.settings, &self.root)?;
        }
        let management = Management::new(client, self.settings.clone());
        let fetched = management.fetch().await.map_err(|trouble| trouble.text().to_owned())?;
        self.node.sync(fetched, Timestamp::now()).await;
        self.start_move();
        if let Some(mut moving) = self.moving.take() {
            let pairs = (&mut moving.task).await.map_err(|error| error.to_string());
            self.moved(&moving.target, pairs.and_then(|pairs| pairs)).await;
        }
        let errors = self.move_error.iter().map(|(problem, _)| problem.clone()).collect();
        let report = self.node.report(token.claims.kind, errors, None);
        let reported = management.report(&report, Timestamp::now()).await;
        reported.map_err(|trouble| trouble.text().to_owned())?;
        if report.errors.is_empty() { Ok(()) } else { Err(report.errors.join("; ")) }
    }

    /// Runs one session for each token.
    async fn run_sessions(&mut self) -> Never {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            server = self.settings.management_server,
            cluster = self.settings.cluster,
            node = self.settings.node,
            "keyplane node starts"
        );
        loop {
            let session = match Token::read(&self.settings, &self.root) {
                Err(problem) => Err(problem),
                Ok(token) => self.session(&token).await,
            };
            if let Err(problem) = session {
                self.failures += 1;
                tracing::warn!(problem, "no session with the management cluster");
                sleep(backoff::delay(self.failures).min(HEARTBEAT)).await;
            }
        }
    }

    /// Runs with one token until the token is replaced. Only errors of the credential are returned.
    async fn session(&mut self, token: &Token) -> Result<(), String> {
        let client = token.client(&self.settings, &self.root)?;
        let management = Management::new(client.clone(), self.settings.clone());
        let mut changes = management.changes();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut synced = false;
        let mut renewal_due = token.claims.renewal_time();
        loop {
            if renewal_due <= Timestamp::now() {
                match renew(client.clone(), &self.settings, &self.root).await {
                    Ok(()) => {
                        tracing::info!("renewed the credential");
                        self.renewal_error = None;
                        return Ok(());
                    }
                    Err(problem) => {
                        tracing::warn!(problem, "renewing the credential failed: the old one stays in use");
                        self.renewal_error = Some(problem);
                        renewal_due = Timestamp::now() + HEARTBEAT;
                    }
                }
            }
            tokio::select! {
                Some(()) = changes.next() => {
                    sleep(DEBOUNCE).await;
                    synced = self.sync(&management).await?;
                }
                _ = heartbeat.tick() => {
                    // The node's owner may have written a new token.
                    if Token::read(&self.settings, &self.root).is_ok_and(|found| found != *token) {
                        return Ok(());
                    }
                    if !synced || !self.node.is_healthy() {
                        synced = self.sync(&management).await?;
                    } else {
                        self.node.verify();
                    }
                }
                event = next_event(&mut self.moving) => if let MoveEvent::Finished(target, pairs) = event {
                    self.moved(&target, pairs).await;
                },
            }
            self.start_move();
            self.report(&management, token).await?;
        }
    }

    /// Fetches and applies the objects; returns whether they could be read.
    async fn sync(&mut self, management: &Management) -> Result<bool, String> {
        match management.fetch().await {
            Ok(fetched) => {
                self.node.sync(fetched, Timestamp::now()).await;
                self.failures = 0;
                Ok(true)
            }
            Err(ManagementError::Unauthorized(problem)) => Err(problem),
            Err(ManagementError::Other(problem)) => {
                tracing::warn!(problem, "the node's files stay unchanged");
                Ok(false)
            }
        }
    }

    async fn report(&mut self, management: &Management, token: &Token) -> Result<(), String> {
        let waits = self.moving.as_ref().and_then(|moving| moving.waits.borrow().clone());
        let move_error = self.move_error.iter().map(|(problem, _)| problem.clone());
        let errors = self.renewal_error.iter().cloned().chain(move_error).collect();
        let report = self.node.report(token.claims.kind, errors, waits);
        for error in &report.errors {
            tracing::warn!(error, "reported");
        }
        match management.report(&report, Timestamp::now()).await {
            Ok(()) => Ok(()),
            Err(ManagementError::Unauthorized(problem)) => Err(problem),
            Err(ManagementError::Other(problem)) => {
                tracing::warn!(problem, "writing the report failed");
                Ok(())
            }
        }
    }

    /// Starts to replace the kubelet's certificates if the node's objects require another CA.
    fn start_move(&mut self) {
        let wanted = self.node.kubelet_ca().zip(self.node.bundle());
        let wanted = wanted.map(|(ca, bundle)| Move { node: self.settings.node.clone(), ca, bundle });
        if let Some(moving) = self.moving.take_if(|moving| Some(&moving.target) != wanted.as_ref()) {
            moving.task.abort();
        }
        let Some(target) = wanted else { return self.move_error = None };
        if self.moving.is_some() || self.move_error.as_ref().is_some_and(|(_, next)| *next > Timestamp::now()) {
            return;
        }
        match target.csr_templates(&self.root) {
            Ok(templates) if templates.is_empty() => self.move_error = None,
            Ok(_) => {
                let (sender, waits) = watch::channel(None);
                let task = tokio::spawn(target.clone().obtain(self.root.clone(), sender));
                self.moving = Some(Moving { target, waits, task });
            }
            Err(problem) => self.fail(problem),
        }
    }

    async fn moved(&mut self, target: &Move, pairs: Result<Vec<Pair>, String>) {
        self.moving = None;
        // The restart is saved first: if the agent is killed before the restart, the next agent does it.
        let stored = pairs.and_then(|pairs| {
            self.node.request_kubelet_restart()?;
            pairs.into_iter().try_for_each(|pair| pair.store(&self.root))
        });
        match stored {
            Ok(()) => {
                self.move_error = None;
                self.node.restart().await;
                tracing::info!(ca = target.ca, "the kubelet's certificates are issued by the new CA");
            }
            Err(problem) => self.fail(problem),
        }
    }

    fn fail(&mut self, problem: String) {
        tracing::warn!(problem, "replacing the kubelet's certificates failed: the old ones stay in use");
        self.failures += 1;
        let next = Timestamp::now() + backoff::delay(self.failures).min(Duration::from_mins(5));
        self.move_error = Some((problem, next));
    }
}

/// Waits for the next event of the move in progress; forever without one.
async fn next_event(moving: &mut Option<Moving>) -> MoveEvent {
    let Some(Moving { target, waits, task }) = moving else { return std::future::pending().await };
    // The task owns the sender. If the sender is dropped, the task has ended, and the branch below returns its result.
    let waited = async {
        if waits.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = waited => MoveEvent::Waiting,
        ended = task => {
            MoveEvent::Finished(target.clone(), ended.map_err(|error| error.to_string()).and_then(|pairs| pairs))
        }
    }
}
