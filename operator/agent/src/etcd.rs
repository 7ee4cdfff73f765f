//! Restarts etcd in place when the node has the restart permit.
//!
//! The kubelet recreates a static pod whose manifest changes. To do so, the kubelet first deletes the old mirror pod at
//! the local API server, which hangs for about a minute without its etcd. So the agent terminates the etcd process
//! instead, and the kubelet restarts its container. The local API server is terminated first, because it has no other
//! etcd. A graceful termination announces the shutdown to load balancers and clients (`--shutdown-delay-duration`) and
//! finishes running requests.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::files::Root;
use super::notes::{EtcdRestart, Notes, etcd};
use super::process::{self, Process};
use super::restart::{PAUSE, probe};
use keyplane_core::pki::places::PKI_DIRECTORY;

/// Time for a terminated process to exit. An API server exits within its shutdown delay and its longest request: 15 and
/// 60 seconds. Extra arguments can extend that.
const TERMINATION_TIMEOUT: Duration = Duration::from_mins(3);

/// Time for etcd to become ready. The kubelet restarts an exited container at once, after ten seconds if it exited
/// before, and later each time. A member with much data needs time to read it.
const START_TIMEOUT: Duration = Duration::from_mins(2);

/// Instruction for the node's owner where the agent restarts nothing.
pub const MANUAL_RESTART: &str = "the CA bundle of etcd has changed, and etcd reads it only when it starts: stop the \
                                  containers of kube-apiserver and then etcd (crictl stop); the kubelet restarts them";

fn api_server() -> Option<Process> {
    process::of_static_pod("kube-apiserver", &format!("--etcd-cafile={PKI_DIRECTORY}/etcd/ca.crt"))
}

/// Restarts etcd, unless this request is completed. With `only_observe` the node's owner does the restart.
///
/// # Errors
/// A process does not exit, or etcd does not become ready.
pub async fn restart(notes: &mut Notes, requested: &str, only_observe: bool, root: &Root) -> Result<(), String> {
    if notes.etcd.as_ref().is_none_or(|restart| restart.requested != requested) {
        notes.etcd = Some(EtcdRestart { requested: requested.to_owned(), before: etcd(), terminating: None });
        notes.save(root)?;
    }
    let before = notes.etcd.as_ref().and_then(|restart| restart.before);
    let Some(before) = before.filter(Process::runs) else { return Ok(()) };
    if only_observe {
        return Ok(());
    }
    if let Some(api_server) = api_server() {
        // If the agent was killed after the SIGTERM, the next agent only waits.
        if let Some(restart) = notes.etcd.as_mut().filter(|restart| restart.terminating != Some(api_server)) {
            tracing::info!("terminating kube-apiserver before the restart of etcd");
            api_server.terminate()?;
            restart.terminating = Some(api_server);
            notes.save(root)?;
        }
        wait_for_exit(&api_server, "kube-apiserver", TERMINATION_TIMEOUT).await?;
    }
    tracing::info!("restarting etcd");
    before.terminate()?;
    wait_for_exit(&before, "etcd", TERMINATION_TIMEOUT).await?;
    let started = Instant::now();
    while let Err(problem) = is_ready().await {
        if started.elapsed() > START_TIMEOUT {
            return Err(format!("etcd is not healthy after its restart: {problem}: see its log in /var/log/pods"));
        }
        sleep(PAUSE).await;
    }
    tracing::info!("etcd is healthy");
    Ok(())
}

/// Checks that etcd runs and can serve, which takes a quorum. A member with a health endpoint over TLS only is not
/// probed, because the operator checks the etcd members itself.
async fn is_ready() -> Result<(), String> {
    let running = etcd().ok_or("etcd does not run")?;
    match metrics_address(&running.arguments()) {
        Some(address) => probe(&address, "/readyz").await,
        None => Ok(()),
    }
}

/// The `host:port` of etcd's health endpoint without TLS.
fn metrics_address(arguments: &[String]) -> Option<String> {
    let urls = arguments.iter().find_map(|argument| argument.strip_prefix("--listen-metrics-urls="))?;
    urls.split(',').find_map(|url| url.strip_prefix("http://")).map(|address| address.trim_end_matches('/').to_owned())
}

async fn wait_for_exit(process: &Process, name: &str, limit: Duration) -> Result<(), String> {
    let started = Instant::now();
    while process.runs() {
        if started.elapsed() > limit {
            return Err(format!("{name} did not exit within {} seconds after SIGTERM", limit.as_secs()));
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

    /// A process that writes its name to the file `signals` for each SIGTERM, and does not exit.
    struct Stubborn(Child);

    impl Stubborn {
        fn start(folder: &Path, name: &str, argument: &str) -> Self {
            let program = folder.join(name);
            fs::copy("/bin/sh", &program).unwrap();
            let script = format!("trap 'echo {name} >>signals' TERM; while :; do sleep 0.05; done");
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
    async fn restarted_agent_sends_no_second_sigterm_to_api_server() {
        let (folder, root) = root();
        let ca_file = |flag: &str| format!("--{flag}={PKI_DIRECTORY}/etcd/ca.crt");
        let _etcd = Stubborn::start(folder.path(), "etcd", &ca_file("trusted-ca-file"));
        let _api_server = Stubborn::start(folder.path(), "kube-apiserver", &ca_file("etcd-cafile"));
        let started = Instant::now();
        while etcd().is_none() || api_server().is_none() {
            assert!(started.elapsed() < Duration::from_secs(10), "the processes do not run");
            sleep(PAUSE / 20).await;
        }
        for _ in 0..2 {
            let mut notes = Notes::load(&root);
            let whole = restart(&mut notes, "new", false, &root);
            // The timeout stands for an agent that is killed while it waits.
            assert!(timeout(PAUSE, whole).await.is_err(), "no process has exited");
        }
        assert_eq!(fs::read_to_string(folder.path().join("signals")).unwrap(), "kube-apiserver\n");
    }

    #[test]
    fn finds_health_endpoint_of_etcd_without_tls() {
        let of = |urls: &str| metrics_address(&["etcd".to_owned(), format!("--listen-metrics-urls={urls}")]);
        assert_eq!(of("http://127.0.0.1:2381").as_deref(), Some("127.0.0.1:2381"));
        assert_eq!(of("https://10.0.0.1:2381,http://[::1]:2381/").as_deref(), Some("[::1]:2381"));
        assert_eq!((of("https://10.0.0.1:2381"), metrics_address(&[])), (None, None));
    }
}
