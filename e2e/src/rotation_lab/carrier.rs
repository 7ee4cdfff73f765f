//! Stands for an administrator without agents: looks every second at what Keyplane has written for a machine, carries it
//! there, and acknowledges it on the objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::scene::{SharedMachine, lock};
use crate::carry::{CarriedFile, files, is_of_the_lab};
use crate::kubectl::Kubectl;
use crate::load;
use crate::machine::StagedFile;

/// How often he looks.
const PAUSE: Duration = Duration::from_secs(1);

/// The checksum of what an object carries.
const CONTENT_CHECKSUM: &str = "keyplane.io/content-checksum";

/// His word that the machine has the content with this checksum.
const CARRIED: &str = "keyplane.io/carried";

/// The kubelet makes or re-creates a pod as soon as it sees a changed file here, so these come last.
const MANIFESTS: &str = "/etc/kubernetes/manifests/";

/// What a kubelet reads at its start and never again.
const READ_BY_A_KUBELET_AT_ITS_START: [&str; 3] =
    ["/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/config.yaml", "/var/lib/kubelet/kubeadm-flags.env"];

/// Somebody who carries to one machine, until dropped.
#[derive(Debug)]
pub struct Carrier {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Carrier {
    /// Begins to carry what the ClusterSpec `cluster` of the namespace `default` has for this machine.
    ///
    /// # Errors
    /// When there is no client of the management cluster.
    pub fn start(management: &Kubectl, cluster: &str, machine: &SharedMachine) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("no thread")?;
        let client = runtime.block_on(load::client(management))?;
        let name = lock(machine).name().to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let mut work = Work {
            runtime,
            client,
            objects: [
                format!("/api/v1/namespaces/default/configmaps/{cluster}-{name}-config"),
                format!("/api/v1/namespaces/default/secrets/{cluster}-{name}-pki"),
            ],
            machine: Arc::clone(machine),
            name,
        };
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Err(error) = work.round() {
                    eprintln!("carrying to {}: {error:#}", work.name);
                }
                thread::sleep(PAUSE);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    runtime: Runtime,
    client: Client,
    /// The ConfigMap, which is read first so that the Secret is at least as new, and the Secret.
    objects: [String; 2],
    machine: SharedMachine,
    name: String,
}

impl Work {
    fn round(&mut self) -> Result<()> {
        let objects = self.objects.iter().map(|path| self.read(path)).collect::<Result<Vec<_>>>()?;
        let [config_map, secret] = objects.as_slice() else { return Ok(()) };
        if [config_map, secret].into_iter().flatten().all(is_acknowledged) {
            return Ok(());
        }
        let mut carried = Vec::new();
        for object in [secret, config_map].into_iter().flatten() {
            carried.extend(files(object)?);
        }
        self.put(&carried)?;
        for (path, object) in self.objects.iter().zip(&objects) {
            if let Some(object) = object {
                self.acknowledge(path, object)?;
            }
        }
        Ok(())
    }

    /// An object; nothing if it isn't there, as a worker's Secret is not.
    fn read(&self, path: &str) -> Result<Option<Value>> {
        let request = http::Request::get(path).body(vec![])?;
        match self.runtime.block_on(self.client.request::<Value>(request)) {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
        }
    }

    /// Writes what differs, the Secret's files first and manifests last, each group in one go.
    fn put(&self, carried: &[CarriedFile]) -> Result<()> {
        let mut machine = lock(&self.machine);
        let differs = |file: &&CarriedFile| {
            !is_of_the_lab(&file.path) && machine.read_file(&file.path).ok().as_ref() != Some(&file.content)
        };
        let changed: Vec<_> = carried.iter().filter(differs).collect();
        let (manifests, others): (Vec<&CarriedFile>, Vec<&CarriedFile>) =
            changed.iter().partition(|file| file.path.starts_with(MANIFESTS));
        for group in [others, manifests] {
            let staged: Vec<_> = group
                .iter()
                .map(|file| StagedFile {
                    path: &file.path,
                    content: &file.content,
                    mode: file.mode,
                    owner: (file.owner != "root:root").then_some(file.owner.as_str()),
                })
                .collect();
            machine.put_files(&staged)?;
        }
        if changed.iter().any(|file| READ_BY_A_KUBELET_AT_ITS_START.contains(&file.path.as_str()))
            && machine.kubelet_log().is_some()
        {
            machine.stop_kubelet()?;
            machine.start_kubelet()?;
        }
        Ok(())
    }

    fn acknowledge(&self, path: &str, object: &Value) -> Result<()> {
        let checksum = &object["metadata"]["annotations"][CONTENT_CHECKSUM];
        let patch = json!({"metadata": {"annotations": {CARRIED: checksum}}});
        let request = http::Request::patch(path).header("Content-Type", "application/merge-patch+json");
        let request = request.body(serde_json::to_vec(&patch)?)?;
        let answer = self.runtime.block_on(self.client.request::<Value>(request));
        answer.map(drop).with_context(|| format!("cannot acknowledge {path}"))
    }
}

fn is_acknowledged(object: &Value) -> bool {
    let annotations = &object["metadata"]["annotations"];
    annotations[CONTENT_CHECKSUM].is_string() && annotations[CONTENT_CHECKSUM] == annotations[CARRIED]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_that_has_changed_since_is_not_acknowledged() {
        let object = |carried: &str| json!({"metadata": {"annotations": {CONTENT_CHECKSUM: "b", CARRIED: carried}}});
        assert!(is_acknowledged(&object("b")));
        assert!(!is_acknowledged(&object("a")));
        assert!(!is_acknowledged(&json!({"metadata": {"annotations": {}}})));
    }
}
