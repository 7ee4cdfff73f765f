//! Starts etcd anew where it is, when it is this machine's turn.
//!
//! A static pod with another manifest is taken down and made anew by the kubelet, which deletes the old one's mirror first:
//! at the API server beside it, which hangs without its etcd, for about a minute. So etcd's process is ended instead, and
//! the kubelet starts its container again. The API server beside it is ended first: it has no other etcd, and this way it
//! tells its load balancers and clients that it goes (`--shutdown-delay-duration`) and finishes what it has begun.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::files::Root;
use super::process::{self, Process};
use super::restart::{Notes, PAUSE, ask};
use keyplane_core::pki::places::PKI_DIRECTORY;

/// An API server that was asked to end does so within its shutdown delay and its longest request: 15 and 60 seconds.
/// Extra arguments may make that longer.
const DRAIN_PATIENCE: Duration = Duration::from_mins(3);

/// The kubelet starts a container that has ended at once, or after ten seconds if it has done so before, and later each
/// time. A member that has much to read gets time.
const START_PATIENCE: Duration = Duration::from_mins(2);

/// What a person does where the agent restarts nothing.
pub const BY_HAND: &str = "etcd has other authorities, which it reads only when it starts: stop the containers of \
                           kube-apiserver and then etcd (crictl stop); the kubelet starts them again";

/// The last time that etcd was to be started anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdTurn {
    /// For what, as the machine's ConfigMap says.
    mark: String,
    /// What ran when that was seen first: any other process has read the files that are there since.
    before: Option<Process>,
    /// The API server beside it, once it was asked to end: asked again it would not finish what it has begun, but end at once
    /// (`SetupSignalContext` of `k8s.io/apiserver`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked_to_end: Option<Process>,
}

impl EtcdTurn {
    /// For what etcd was started anew; nothing while the former process runs, or none.
    #[must_use]
    pub fn done(&self) -> Option<&str> {
        let running = etcd();
        (running.is_some() && running != self.before).then_some(&self.mark)
    }
}

fn etcd() -> Option<Process> {
    process::of_static_pod("etcd", &format!("--trusted-ca-file={PKI_DIRECTORY}/etcd/ca.crt"))
}

fn api_server() -> Option<Process> {
    process::of_static_pod("kube-apiserver", &format!("--etcd-cafile={PKI_DIRECTORY}/etcd/ca.crt"))
}

/// Has etcd started anew, unless that was done for this mark. `only_look` leaves it to a person.
///
/// # Errors
/// What could not be done.
pub async fn restart(notes: &mut Notes, mark: &str, only_look: bool, root: &Root) -> Result<(), String> {
    if notes.etcd.as_ref().is_none_or(|turn| turn.mark != mark) {
        notes.etcd = Some(EtcdTurn { mark: mark.to_owned(), before: etcd(), asked_to_end: None });
        notes.save(root)?;
    }
    let Some(before) = notes.etcd.as_ref().and_then(|turn| turn.before).filter(Process::runs) else { return Ok(()) };
    if only_look {
        return Ok(());
    }
    if let Some(api_server) = api_server() {
        // An agent that was killed here goes on waiting.
        if let Some(turn) = notes.etcd.as_mut().filter(|turn| turn.asked_to_end != Some(api_server)) {
            tracing::info!("ending kube-apiserver, which etcd beside it is restarted for");
            api_server.terminate()?;
            turn.asked_to_end = Some(api_server);
            notes.save(root)?;
        }
        gone(&api_server, "kube-apiserver", DRAIN_PATIENCE).await?;
    }
    tracing::info!("restarting etcd");
    before.terminate()?;
    gone(&before, "etcd", DRAIN_PATIENCE).await?;
    let begun = Instant::now();
    while let Err(problem) = is_ready().await {
        if begun.elapsed() > START_PATIENCE {
            return Err(format!("etcd was restarted and is not well: {problem}: see its log in /var/log/pods"));
        }
        sleep(PAUSE).await;
    }
    tracing::info!("etcd is well");
    Ok(())
}

/// Whether etcd runs and says that it can serve, which takes a quorum. One that says so only over TLS is asked by nobody
/// here: the operator looks at its members itself.
async fn is_ready() -> Result<(), String> {
    let running = etcd().ok_or("it does not run")?;
    match metrics_address(&running.arguments()) {
        Some(address) => ask(&address, "/readyz").await,
        None => Ok(()),
    }
}

/// Where it answers questions for its health without TLS, `host:port`.
fn metrics_address(arguments: &[String]) -> Option<String> {
    let urls = arguments.iter().find_map(|argument| argument.strip_prefix("--listen-metrics-urls="))?;
    urls.split(',').find_map(|url| url.strip_prefix("http://")).map(|address| address.trim_end_matches('/').to_owned())
}

async fn gone(process: &Process, name: &str, patience: Duration) -> Result<(), String> {
    let begun = Instant::now();
    while process.runs() {
        if begun.elapsed() > patience {
            return Err(format!("{name} was asked to end and has not done so for {} seconds", patience.as_secs()));
        }
        sleep(PAUSE / 5).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::{Child, Command};

    use tokio::time::timeout;

    use super::*;
    use crate::files::tests::root;

    /// A process of this name that notes in the file `asked` each time that it is asked to end, and does not.
    struct Stubborn(Child);

    impl Stubborn {
        fn start(folder: &Path, name: &str, argument: &str) -> Self {
            let program = folder.join(name);
            fs::copy("/bin/sh", &program).unwrap();
            let script = format!("trap 'echo {name} >>asked' TERM; while :; do sleep 0.05; done");
            Self(Command::new(program).args(["-c", &script, argument]).current_dir(folder).spawn().unwrap())
        }
    }

    impl Drop for Stubborn {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[tokio::test]
    async fn an_agent_that_is_started_anew_does_not_ask_an_api_server_twice_to_end() {
        let (folder, root) = root();
        let authority = |flag: &str| format!("--{flag}={PKI_DIRECTORY}/etcd/ca.crt");
        let _etcd = Stubborn::start(folder.path(), "etcd", &authority("trusted-ca-file"));
        let _api_server = Stubborn::start(folder.path(), "kube-apiserver", &authority("etcd-cafile"));
        let begun = Instant::now();
        while etcd().is_none() || api_server().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(10), "they do not run");
            sleep(PAUSE / 20).await;
        }
        for _ in 0..2 {
            let mut notes = Notes::load(&root);
            let whole = restart(&mut notes, "new", false, &root);
            // Killed while it waits.
            assert!(timeout(PAUSE, whole).await.is_err(), "nobody has ended");
        }
        assert_eq!(fs::read_to_string(folder.path().join("asked")).unwrap(), "kube-apiserver\n");
    }

    #[test]
    fn etcd_is_asked_where_it_answers_without_tls() {
        let of = |urls: &str| metrics_address(&["etcd".to_owned(), format!("--listen-metrics-urls={urls}")]);
        assert_eq!(of("http://127.0.0.1:2381").as_deref(), Some("127.0.0.1:2381"));
        assert_eq!(of("https://10.0.0.1:2381,http://[::1]:2381/").as_deref(), Some("[::1]:2381"));
        assert_eq!((of("https://10.0.0.1:2381"), metrics_address(&[])), (None, None));
    }
}
