//! The agent's life: it watches, carries, reports, and renews its credential.

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
use super::machine::Machine;
use super::management::{Fetched, Management, Trouble};
use super::restart::Commands;
use crate::options::Options;
use keyplane_client::backoff;
use keyplane_core::agent_access::settings::{DEFAULT_FILE, FileSettings, Settings};

/// How often it reports, also if there is nothing new: five reports that are missing are a silent agent.
const HEARTBEAT: Duration = Duration::from_mins(1);

/// Both objects are often written one right after the other.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// Runs the agent until a signal comes, or once.
///
/// # Errors
/// If it has no settings, or, once, if something could not be done.
pub async fn run(options: Options) -> Result<(), String> {
    let root = Root(options.root.clone());
    let commands = Commands {
        kubelet: options.kubelet_restart_command.clone(),
        unit: options.unit_restart_command.clone(),
        kubelet_health: options.kubelet_health.clone(),
        none: options.no_restarts,
    };
    let machine = Machine::new(root.clone(), commands);
    if !options.from.is_empty() {
        return carry_from(&options.from, machine).await;
    }
    let settings = settings(&options, &root)?;
    let mut agent = Agent { settings, root, machine, failures: 0, renewal: None, moving: None, told: None };
    if options.once {
        return agent.once().await;
    }
    agent.machine.takes_turns = true;
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    tokio::select! {
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
        never = agent.live() => match never {},
    }
}

fn settings(options: &Options, root: &Root) -> Result<Settings, String> {
    let path = options.config.clone().unwrap_or_else(|| DEFAULT_FILE.to_owned());
    let file = match root.read(&path).map_err(|error| format!("{path}: {error}"))? {
        Some(text) => {
            let text = String::from_utf8_lossy(&text).into_owned();
            serde_saphyr::from_str::<FileSettings>(&text).map_err(|error| format!("{path}: {error}"))?
        }
        None if options.config.is_some() => return Err(format!("--config {path}: there is no such file")),
        None => FileSettings::default(),
    };
    options.settings().or(file).complete()
}

/// Carries objects that lie in files, for a machine that does not reach the management cluster.
async fn carry_from(files: &[std::path::PathBuf], mut machine: Machine) -> Result<(), String> {
    let (mut config_map, mut secret) = (None, None);
    for path in files {
        match object(path)? {
            Object::ConfigMap(found) => config_map = Some(found),
            Object::Secret(found) => secret = Some(found),
        }
    }
    machine.bring(Fetched::of(config_map, secret), Timestamp::now()).await;
    let report = machine.report(keyplane_core::agent_report::CredentialKind::Bootstrap, vec![], None);
    if report.errors.is_empty() { Ok(()) } else { Err(report.errors.join("; ")) }
}

enum Object {
    ConfigMap(ConfigMap),
    Secret(Secret),
}

fn object(path: &Path) -> Result<Object, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
    // The text may be a Secret's: what a parser quotes of it must not be shown.
    let value: serde_json::Value = serde_saphyr::from_str(&text).map_err(|_| told(&"it is neither YAML nor JSON"))?;
    let wrong = |_| told(&"it can't be read");
    match value["kind"].as_str() {
        Some("ConfigMap") => serde_json::from_value(value).map(Object::ConfigMap).map_err(wrong),
        Some("Secret") => serde_json::from_value(value).map(Object::Secret).map_err(wrong),
        _ => Err(told(&"it is neither a Secret nor a ConfigMap")),
    }
}

/// The kubelet's certificates on their way to another authority.
struct Moving {
    what: Move,
    waits: watch::Receiver<Option<String>>,
    task: JoinHandle<Result<Vec<Pair>, String>>,
}

/// What is new of a move.
enum MoveNews {
    /// It waits for something.
    Waits,
    /// It has ended.
    Ended(Move, Result<Vec<Pair>, String>),
}

struct Agent {
    settings: Settings,
    root: Root,
    machine: Machine,
    /// How often in a row something could not be done.
    failures: u32,
    /// Why the credential could not be renewed.
    renewal: Option<String>,
    moving: Option<Moving>,
    /// What came of the last move, if it failed, and when to try again.
    told: Option<(String, Timestamp)>,
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
        self.machine.bring(fetched, Timestamp::now()).await;
        self.start_move();
        if let Some(mut moving) = self.moving.take() {
            let pairs = (&mut moving.task).await.map_err(|error| error.to_string());
            self.moved(&moving.what, pairs.and_then(|pairs| pairs)).await;
        }
        let errors = self.told.iter().map(|(problem, _)| problem.clone()).collect();
        let report = self.machine.report(token.claims.kind, errors, None);
        let reported = management.report(&report, Timestamp::now()).await;
        reported.map_err(|trouble| trouble.text().to_owned())?;
        if report.errors.is_empty() { Ok(()) } else { Err(report.errors.join("; ")) }
    }

    /// Sessions with one token after the other.
    async fn live(&mut self) -> Never {
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

    /// Works with one token, until there is another one. An error is one of the credential.
    async fn session(&mut self, token: &Token) -> Result<(), String> {
        let client = token.client(&self.settings, &self.root)?;
        let management = Management::new(client.clone(), self.settings.clone());
        let mut changes = management.changes();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut carried = false;
        let mut renewal_due = token.claims.renewal_time();
        loop {
            if renewal_due <= Timestamp::now() {
                match renew(client.clone(), &self.settings, &self.root).await {
                    Ok(()) => {
                        tracing::info!("renewed the credential");
                        self.renewal = None;
                        return Ok(());
                    }
                    Err(problem) => {
                        tracing::warn!(problem, "the credential stays the old one");
                        self.renewal = Some(problem);
                        renewal_due = Timestamp::now() + HEARTBEAT;
                    }
                }
            }
            tokio::select! {
                Some(()) = changes.next() => {
                    sleep(DEBOUNCE).await;
                    carried = self.carry(&management).await?;
                }
                _ = heartbeat.tick() => {
                    // An owner may have put a new one there.
                    if Token::read(&self.settings, &self.root).is_ok_and(|found| found != *token) {
                        return Ok(());
                    }
                    if !carried || !self.machine.is_well() {
                        carried = self.carry(&management).await?;
                    } else {
                        self.machine.look();
                    }
                }
                news = news(&mut self.moving) => if let MoveNews::Ended(what, pairs) = news {
                    self.moved(&what, pairs).await;
                },
            }
            self.start_move();
            self.report(&management, token).await?;
        }
    }

    /// Whether the objects could be read.
    async fn carry(&mut self, management: &Management) -> Result<bool, String> {
        match management.fetch().await {
            Ok(fetched) => {
                self.machine.bring(fetched, Timestamp::now()).await;
                self.failures = 0;
                Ok(true)
            }
            Err(Trouble::Unauthorized(problem)) => Err(problem),
            Err(Trouble::Other(problem)) => {
                tracing::warn!(problem, "the machine stays as it is");
                Ok(false)
            }
        }
    }

    async fn report(&mut self, management: &Management, token: &Token) -> Result<(), String> {
        let waits = self.moving.as_ref().and_then(|moving| moving.waits.borrow().clone());
        let errors = self.renewal.iter().cloned().chain(self.told.iter().map(|(problem, _)| problem.clone())).collect();
        let report = self.machine.report(token.claims.kind, errors, waits);
        for error in &report.errors {
            tracing::warn!(error, "reported");
        }
        match management.report(&report, Timestamp::now()).await {
            Ok(()) => Ok(()),
            Err(Trouble::Unauthorized(problem)) => Err(problem),
            Err(Trouble::Other(problem)) => {
                tracing::warn!(problem, "not reported");
                Ok(())
            }
        }
    }

    /// Begins to move the kubelet's certificates, if they are to come from another authority.
    fn start_move(&mut self) {
        let wanted = self.machine.kubelet_authority().zip(self.machine.bundle());
        let wanted = wanted.map(|(authority, bundle)| Move { node: self.settings.node.clone(), authority, bundle });
        if let Some(moving) = self.moving.take_if(|moving| Some(&moving.what) != wanted.as_ref()) {
            moving.task.abort();
        }
        let Some(what) = wanted else { return self.told = None };
        if self.moving.is_some() || self.told.as_ref().is_some_and(|(_, next)| *next > Timestamp::now()) {
            return;
        }
        match what.orders(&self.root) {
            Ok(orders) if orders.is_empty() => self.told = None,
            Ok(_) => {
                let (sender, waits) = watch::channel(None);
                let task = tokio::spawn(what.clone().obtain(self.root.clone(), sender));
                self.moving = Some(Moving { what, waits, task });
            }
            Err(problem) => self.fail(problem),
        }
    }

    async fn moved(&mut self, what: &Move, pairs: Result<Vec<Pair>, String>) {
        self.moving = None;
        // The restart is noted first: an agent that is killed before it leaves it to the next one.
        let put = pairs.and_then(|pairs| {
            self.machine.want_kubelet()?;
            pairs.into_iter().try_for_each(|pair| pair.put(&self.root))
        });
        match put {
            Ok(()) => {
                self.told = None;
                self.machine.restart().await;
                tracing::info!(authority = what.authority, "the kubelet's certificates have moved");
            }
            Err(problem) => self.fail(problem),
        }
    }

    fn fail(&mut self, problem: String) {
        tracing::warn!(problem, "the kubelet's certificates stay the old ones");
        self.failures += 1;
        let next = Timestamp::now() + backoff::delay(self.failures).min(Duration::from_mins(5));
        self.told = Some((problem, next));
    }
}

/// What is new of the move that is under way; without one, nothing ever.
async fn news(moving: &mut Option<Moving>) -> MoveNews {
    let Some(Moving { what, waits, task }) = moving else { return std::future::pending().await };
    // The sender goes with the task, whose end then tells more.
    let waited = async {
        if waits.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = waited => MoveNews::Waits,
        ended = task => {
            MoveNews::Ended(what.clone(), ended.map_err(|error| error.to_string()).and_then(|pairs| pairs))
        }
    }
}
