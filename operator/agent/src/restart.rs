//! Restarts units that do not reload their files, one after the other, and waits until each is healthy.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::files::Root;
use super::notes::Notes;
use super::process;
use super::units::KUBELET;

/// Time for a restarted kubelet to become healthy. The kubelet needs seconds, and longer with a slow disk.
const KUBELET_HEALTH_TIMEOUT: Duration = Duration::from_mins(2);

/// Time for a restart command, because a command that hangs blocks all other work.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(5);

/// Interval of health probes.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Commands that restart units on this host.
#[derive(Debug, Clone)]
pub struct Commands {
    /// Shell command that restarts the kubelet.
    pub kubelet: String,
    /// Shell command that restarts another unit; `{unit}` stands for its name.
    pub unit: String,
    /// The kubelet's health endpoint, `host:port`.
    pub kubelet_health: String,
    /// Whether the agent restarts nothing.
    pub none: bool,
}

/// Restarts these units. The first unit that is not healthy afterwards stops the loop, so that a bad file breaks only
/// one component.
///
/// # Errors
/// The failed unit, with its problem.
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
    let started = Instant::now();
    loop {
        let is_new = process::kubelet().is_some_and(|now| Some(now) != before);
        let health = if is_new {
            probe(&commands.kubelet_health, "/healthz").await
        } else {
            Err("no new kubelet process exists".to_owned())
        };
        match health {
            Ok(()) => return Ok(()),
            Err(problem) if started.elapsed() > KUBELET_HEALTH_TIMEOUT => {
                return Err(format!("kubelet is not healthy after its restart: {problem}: see journalctl -u kubelet"));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn run(command: &str) -> Result<(), String> {
    let output = Command::new("/bin/sh").args(["-c", command]).kill_on_drop(true).output();
    let timed_out = |_| format!("{command:?} did not finish within {} seconds", COMMAND_TIMEOUT.as_secs());
    let output = timeout(COMMAND_TIMEOUT, output).await.map_err(timed_out)?;
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed with {}: {}", output.status, stderr.lines().last().unwrap_or_default()))
}

/// Probes a health endpoint over plain HTTP.
pub(super) async fn probe(address: &str, path: &str) -> Result<(), String> {
    let get = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = vec![];
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(Duration::from_secs(5), get).await.map_err(|_| format!("{address} does not answer"))?;
    let answer = answer.map_err(|error| format!("{address}: {error}"))?;
    let status = answer.lines().next().unwrap_or_default();
    if status.contains(" 200 ") { Ok(()) } else { Err(format!("{address} answers {status:?}")) }
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
    async fn restarts_changed_units_in_order_and_stops_at_first_failure() {
        let (folder, root) = root();
        let log = folder.path().join("log").to_string_lossy().into_owned();
        let before = states(&[("kube-proxy", "a"), ("etcd", "a"), ("kube-scheduler", "a"), ("kube-apiserver", "a")]);
        let mut notes = Notes::load(&root);
        notes.record_running(&before, &root).unwrap();
        restart_due(&mut notes, &before, &commands(&log), &root).await.unwrap();
        assert!(fs::read(&log).is_err(), "no file has changed");
        let after = states(&[("kube-proxy", "b"), ("etcd", "b"), ("kube-scheduler", "b"), ("kube-apiserver", "a")]);
        let error = restart_due(&mut notes, &after, &commands(&log), &root).await.unwrap_err();
        assert!(error.contains("kube-scheduler") && error.contains("exit status: 1"), "{error}");
        assert_eq!(fs::read_to_string(&log).unwrap(), "etcd\nkube-scheduler\n");
        // The notes survive a restart of the agent: etcd is not restarted again.
        assert_eq!(Notes::load(&root).due(&after), ["kube-scheduler", "kube-proxy"]);
    }

    #[test]
    fn requested_kubelet_restart_survives_agent_restart() {
        let (_folder, root) = root();
        let now = states(&[("kubelet", "a")]);
        let mut notes = Notes::load(&root);
        notes.record_running(&now, &root).unwrap();
        assert!(notes.due(&now).is_empty());
        notes.request_kubelet_restart(&root).unwrap();
        assert_eq!(Notes::load(&root).due(&now), ["kubelet"]);
        // A new unit is started without a permit.
        assert_eq!(Notes::default().first_starts(&now), ["kubelet"]);
        assert_eq!((Notes::default().wanted(&now), Notes::load(&root).first_starts(&now)), (None, vec![]));
    }

    #[test]
    fn each_restart_has_its_own_fingerprint() {
        let (_folder, root) = root();
        let (a, b) = (states(&[("kubelet", "a"), ("etcd", "a")]), states(&[("kubelet", "b"), ("etcd", "a")]));
        let mut notes = Notes::load(&root);
        notes.record_running(&a, &root).unwrap();
        assert_eq!(notes.wanted(&a), None);
        let first = notes.wanted(&b).unwrap();
        assert_eq!(first.units, ["kubelet"]);
        notes.units.extend(b.clone());
        assert_ne!(notes.wanted(&a).unwrap().mark, first.mark, "return to the earlier files");
        notes.request_kubelet_restart(&root).unwrap();
        assert_ne!(notes.wanted(&b).unwrap().mark, first.mark, "the same files again");
    }

    #[tokio::test]
    async fn kubelet_without_answer_is_not_healthy() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            for answer in ["HTTP/1.0 500 Internal Server Error\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nok"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 64];
                let _ = stream.read(&mut request).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        assert!(probe(&address, "/healthz").await.unwrap_err().contains("500"));
        assert_eq!(probe(&address, "/healthz").await, Ok(()));
        server.await.unwrap();
        assert!(probe(&address, "/healthz").await.is_err());
    }
}
