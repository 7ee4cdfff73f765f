//! Restarts what does not read its files anew by itself, one after the other, and waits until it is well.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::etcd::EtcdTurn;
use super::files::Root;
use super::index::MachineFile;
use super::process;
use super::units::{KUBELET, UNITS};
use keyplane_core::agent_report::WantedRestart;
use keyplane_core::checksum::checksum;

/// Where the agent notes for which files each unit was started last. A crash between a change and the restart then loses
/// no restart.
const NOTES: &str = "/var/lib/keyplane/node.json";

/// A kubelet that is started answers within seconds; a slow disk gets this long.
const HEALTH_PATIENCE: Duration = Duration::from_mins(2);

/// A restart that hangs holds up everything else.
const COMMAND_PATIENCE: Duration = Duration::from_mins(5);

/// How often health is asked for.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// In the notes: the unit is to be restarted whatever its files are.
const WANTED: &str = "restart";

/// How units are restarted here.
#[derive(Debug, Clone)]
pub struct Commands {
    /// The shell's command that restarts the kubelet.
    pub kubelet: String,
    /// The same of another unit; `{unit}` stands for its name.
    pub unit: String,
    /// Where the kubelet says that it is well, `host:port`.
    pub kubelet_health: String,
    /// Nothing is restarted.
    pub none: bool,
}

/// For which files each unit was started last.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Notes {
    units: BTreeMap<String, String>,
    /// The last time that etcd was to be started anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) etcd: Option<EtcdTurn>,
}

impl Notes {
    /// Reads them; a machine without any begins anew.
    #[must_use]
    pub fn load(root: &Root) -> Self {
        let text = root.read(NOTES).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// What runs was started with these files, as far as nothing else is known.
    ///
    /// # Errors
    /// If it can't be noted.
    pub fn begin(&mut self, states: &BTreeMap<String, String>, root: &Root) -> Result<(), String> {
        let missing = states.iter().any(|(unit, _)| !self.units.contains_key(unit));
        for (unit, state) in states {
            self.units.entry(unit.clone()).or_insert_with(|| state.clone());
        }
        if missing { self.save(root) } else { Ok(()) }
    }

    /// Has the kubelet restarted, also if the agent is killed before that.
    ///
    /// # Errors
    /// If it can't be noted.
    pub fn want_kubelet(&mut self, root: &Root) -> Result<(), String> {
        self.units.insert(KUBELET.name.to_owned(), WANTED.to_owned());
        self.save(root)
    }

    /// The units that were started with other files, in their order.
    #[must_use]
    pub fn due(&self, states: &BTreeMap<String, String>) -> Vec<&'static str> {
        let differs = |unit: &&str| states.get(*unit).is_some_and(|state| self.units.get(*unit) != Some(state));
        UNITS.iter().map(|unit| unit.name).filter(differs).collect()
    }

    /// The units that are due and were never started with files of Keyplane: to start them is not to restart them.
    #[must_use]
    pub fn first_starts(&self, states: &BTreeMap<String, String>) -> Vec<&'static str> {
        self.due(states).into_iter().filter(|unit| !self.units.contains_key(*unit)).collect()
    }

    /// The restart of what is due; nothing if nothing is. The same files after others, or again, are another restart.
    #[must_use]
    pub fn wanted(&self, states: &BTreeMap<String, String>) -> Option<WantedRestart> {
        let due = self.due(states);
        let changes = due.iter().filter_map(|unit| {
            let (before, after) = (self.units.get(*unit)?, states.get(*unit)?);
            Some((*unit, format!("{before} {after}")))
        });
        let changes: Vec<_> = changes.collect();
        let mark = checksum(changes.iter().map(|(unit, change)| (*unit, change.as_bytes())));
        let units: Vec<_> = changes.iter().map(|(unit, _)| (*unit).to_owned()).collect();
        (!units.is_empty()).then_some(WantedRestart { units, mark })
    }

    /// Writes them.
    ///
    /// # Errors
    /// If that is not possible.
    pub(super) fn save(&self, root: &Root) -> Result<(), String> {
        let content = serde_json::to_vec(self).unwrap_or_default();
        let (user, group) = ("root".to_owned(), "root".to_owned());
        let file = MachineFile { path: NOTES.to_owned(), mode: 0o600, user, group, content };
        root.write(&file).map_err(|error| format!("{NOTES}: {error}"))
    }
}

/// Restarts these units. The first that is not well afterwards ends it: one mistake takes down one component.
///
/// # Errors
/// Which one, and what became of it.
pub async fn restart(
    notes: &mut Notes,
    units: Vec<&'static str>,
    states: &BTreeMap<String, String>,
    commands: &Commands,
    root: &Root,
) -> Result<(), String> {
    for unit in units {
        if !commands.none {
            tracing::info!(unit, "restarting");
            if unit == KUBELET.name {
                restart_kubelet(commands).await?;
            } else {
                run(&commands.unit.replace("{unit}", unit))
                    .await
                    .map_err(|error| format!("restarting {unit}: {error}"))?;
            }
        }
        if let Some(state) = states.get(unit) {
            notes.units.insert(unit.to_owned(), state.clone());
        }
        notes.save(root)?;
    }
    Ok(())
}

async fn restart_kubelet(commands: &Commands) -> Result<(), String> {
    let before = process::kubelet();
    run(&commands.kubelet).await.map_err(|error| format!("restarting kubelet: {error}"))?;
    let begun = Instant::now();
    loop {
        let is_new = process::kubelet().is_some_and(|now| Some(now) != before);
        let health =
            if is_new { ask(&commands.kubelet_health, "/healthz").await } else { Err("it does not run".to_owned()) };
        match health {
            Ok(()) => return Ok(()),
            Err(problem) if begun.elapsed() > HEALTH_PATIENCE => {
                return Err(format!("kubelet was restarted and is not well: {problem}: see journalctl -u kubelet"));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn run(command: &str) -> Result<(), String> {
    let output = Command::new("/bin/sh").args(["-c", command]).kill_on_drop(true).output();
    let output = timeout(COMMAND_PATIENCE, output).await.map_err(|_| format!("{command:?} hangs"))?;
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} ended with {}: {}", output.status, words.lines().last().unwrap_or_default()))
}

/// Asks a component how it is, where it answers plain HTTP.
pub(super) async fn ask(address: &str, path: &str) -> Result<(), String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = vec![];
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(Duration::from_secs(5), ask).await.map_err(|_| format!("{address} does not answer"))?;
    let answer = answer.map_err(|error| format!("{address}: {error}"))?;
    let status = answer.lines().next().unwrap_or_default();
    if status.contains(" 200 ") { Ok(()) } else { Err(format!("{address} says {status:?}")) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files::tests::root;

    fn states(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(unit, state)| ((*unit).to_owned(), (*state).to_owned())).collect()
    }

    fn commands(log: &str) -> Commands {
        Commands {
            kubelet: "false".to_owned(),
            unit: format!("echo {{unit}} >>{log}; [ {{unit}} != kube-scheduler ]"),
            kubelet_health: "127.0.0.1:1".to_owned(),
            none: false,
        }
    }

    async fn restart_due(
        notes: &mut Notes,
        states: &BTreeMap<String, String>,
        commands: &Commands,
        root: &Root,
    ) -> Result<(), String> {
        restart(notes, notes.due(states), states, commands, root).await
    }

    #[tokio::test]
    async fn restarts_what_has_other_files_in_order_and_stops_at_the_first_that_fails() {
        let (folder, root) = root();
        let log = folder.path().join("log").to_string_lossy().into_owned();
        let before = states(&[("kube-proxy", "a"), ("etcd", "a"), ("kube-scheduler", "a"), ("kube-apiserver", "a")]);
        let mut notes = Notes::load(&root);
        notes.begin(&before, &root).unwrap();
        restart_due(&mut notes, &before, &commands(&log), &root).await.unwrap();
        assert!(fs::read(&log).is_err(), "nothing had changed");
        let after = states(&[("kube-proxy", "b"), ("etcd", "b"), ("kube-scheduler", "b"), ("kube-apiserver", "a")]);
        let told = restart_due(&mut notes, &after, &commands(&log), &root).await.unwrap_err();
        assert!(told.contains("kube-scheduler") && told.contains("exit status: 1"), "{told}");
        assert_eq!(fs::read_to_string(&log).unwrap(), "etcd\nkube-scheduler\n");
        // What is noted outlives the agent: etcd is not restarted again.
        assert_eq!(Notes::load(&root).due(&after), ["kube-scheduler", "kube-proxy"]);
    }

    #[test]
    fn a_wanted_restart_of_the_kubelet_outlives_the_agent() {
        let (_folder, root) = root();
        let now = states(&[("kubelet", "a")]);
        let mut notes = Notes::load(&root);
        notes.begin(&now, &root).unwrap();
        assert!(notes.due(&now).is_empty());
        notes.want_kubelet(&root).unwrap();
        assert_eq!(Notes::load(&root).due(&now), ["kubelet"]);
        // A unit that is there for the first time is started, whosever turn it is.
        assert_eq!(Notes::default().first_starts(&now), ["kubelet"]);
        assert_eq!((Notes::default().wanted(&now), Notes::load(&root).first_starts(&now)), (None, vec![]));
    }

    #[test]
    fn each_restart_has_a_mark_of_its_own() {
        let (_folder, root) = root();
        let (a, b) = (states(&[("kubelet", "a"), ("etcd", "a")]), states(&[("kubelet", "b"), ("etcd", "a")]));
        let mut notes = Notes::load(&root);
        notes.begin(&a, &root).unwrap();
        assert_eq!(notes.wanted(&a), None);
        let there = notes.wanted(&b).unwrap();
        assert_eq!(there.units, ["kubelet"]);
        notes.units.extend(b.clone());
        assert_ne!(notes.wanted(&a).unwrap().mark, there.mark, "back again");
        notes.want_kubelet(&root).unwrap();
        assert_ne!(notes.wanted(&b).unwrap().mark, there.mark, "the same files again");
    }

    #[tokio::test]
    async fn a_kubelet_that_does_not_answer_is_not_well() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            for answer in ["HTTP/1.0 500 Internal Server Error\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nok"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 64];
                let _ = stream.read(&mut asked).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        assert!(ask(&address, "/healthz").await.unwrap_err().contains("500"));
        assert_eq!(ask(&address, "/healthz").await, Ok(()));
        server.await.unwrap();
        assert!(ask(&address, "/healthz").await.is_err());
    }
}
