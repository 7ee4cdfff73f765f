//! One sync of the node: apply the files, restart components, and build the report.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::sleep;

use super::apply::{Applied, Objects, apply, apply_before_static_pods};
use super::files::Root;
use super::index::NodeFile;
use super::kubelet::{prune, replacement_client};
use super::kubelet_certificates::{self, Kind};
use super::management::Fetched;
use super::notes::Notes;
use super::own_kubeconfig::{KUBELET_KUBECONFIGS, with_bundle};
use super::process::{self, Process};
use super::restart::{Commands, restart};
use super::trusted_cas::foreign_cas;
use super::{etcd, units};
use keyplane_core::agent_report::{CredentialKind, KubeletReport, NodeReport, WantedRestart};

/// The bundles that a kubelet verifies its clients with, in both layouts: the node's `ca.crt`.
const BUNDLES: [&str; 2] = ["/etc/kubernetes/pki/ca.crt", "/var/lib/kubelet/ca.crt"];

/// Limit of an error in a report, in characters, so that all errors fit into an annotation.
const LONGEST_ERROR: usize = 300;

/// Time for a restarted kubelet to report its static pods to the API server. Before that, the kubelet waits for the API
/// server before it starts a static pod, also if that pod is the local etcd.
const KUBELET_SETTLE_TIME: Duration = Duration::from_secs(10);

/// The node that the agent runs on, with the state of its last sync.
pub struct LocalNode {
    /// Root directory of the files.
    pub root: Root,
    /// Commands that restart units.
    pub commands: Commands,
    notes: Notes,
    fetched: Fetched,
    applied: Applied,
    errors: Vec<String>,
    changed: Option<Timestamp>,
    /// Whether restarts wait for the restart permit. With `--once` they don't, because a user waits for the result.
    pub waits_for_permit: bool,
    /// The restart that waits for its permit.
    waiting: Option<WantedRestart>,
    /// Manual steps for the node's owner, by path of the changed file.
    pending: BTreeMap<String, String>,
    kubelet: Option<(Process, Option<Timestamp>)>,
}

impl LocalNode {
    /// Loads the state that the previous agent left on the node.
    #[must_use]
    pub fn new(root: Root, commands: Commands) -> Self {
        let notes = Notes::load(&root);
        Self {
            root,
            commands,
            notes,
            fetched: Fetched::default(),
            applied: Applied::default(),
            errors: vec![],
            changed: None,
            waits_for_permit: false,
            waiting: None,
            pending: BTreeMap::new(),
            kubelet: None,
        }
    }

    /// Applies the fetched objects to the node, and restarts components where needed.
    pub async fn sync(&mut self, fetched: Fetched, now: Timestamp) {
        self.fetched = fetched;
        self.errors.clear();
        self.reject_foreign_cas();
        if let Err(problem) = self.record_running_units() {
            self.errors.push(problem);
            return;
        }
        let mut before = apply_before_static_pods(&self.root, &self.fetched.objects);
        match self.update_kubeconfig_bundle() {
            Ok(path) => before.changed.extend(path),
            Err(problem) => self.errors.push(problem),
        }
        if let Err(problem) = self.replace_rejected_client() {
            self.errors.push(problem);
        }
        // Units are not restarted with incomplete files.
        if before.errors.is_empty() && self.restart().await && !self.commands.none {
            sleep(KUBELET_SETTLE_TIME).await;
        }
        self.applied = apply(&self.root, &self.fetched.objects).after(before);
        self.errors.extend(prune(&self.root).err());
        let changed = self.applied.changed.clone();
        if !changed.is_empty() {
            self.changed = Timestamp::from_second(now.as_second()).ok();
            tracing::info!(files = changed.join(" "), "wrote");
        }
        if self.is_healthy() && self.fetched.rejected.is_empty() {
            self.restart_etcd().await;
        }
        for path in &self.applied.replaced {
            if let Some(command) = units::manual_command(path) {
                self.pending.insert(path.clone(), format!("{path} has changed: {command}"));
            }
        }
    }

    /// Restarts etcd if the node has the permit. Incomplete files are applied first.
    async fn restart_etcd(&mut self) {
        let Some(requested) = self.fetched.etcd_restart.clone() else { return };
        let restarted = etcd::restart(&mut self.notes, &requested, self.commands.none, &self.root).await;
        self.errors.extend(restarted.err());
    }

    /// Rejects objects whose CAs can't be those of this node's cluster.
    fn reject_foreign_cas(&mut self) {
        let Fetched { objects, revoked, .. } = &self.fetched;
        let wanted: Vec<_> = objects.secret.iter().chain(&objects.config).flat_map(|wanted| &wanted.files).collect();
        let foreign = foreign_cas(&wanted, |path| self.root.read(path).ok().flatten(), revoked);
        if let Some(problem) = foreign {
            self.fetched.objects = Objects::default();
            self.fetched.kubelet_ca = None;
            self.fetched.rejected.push(problem);
        }
    }

    /// Stores the client certificate from the node's files for the kubelet, if the API server rejects the kubelet's own
    /// one. The restart is saved first: if the agent is killed before the restart, the next agent does it.
    fn replace_rejected_client(&mut self) -> Result<(), String> {
        let Some(bundle) = self.bundle() else { return Ok(()) };
        let files = self.fetched.objects.secret.iter().flat_map(|wanted| &wanted.files);
        let kubeconfigs = files.filter(|file| KUBELET_KUBECONFIGS.contains(&file.path.as_str()));
        let replacements: Vec<_> =
            kubeconfigs.filter_map(|file| replacement_client(&self.root, &file.content, &bundle).transpose()).collect();
        for pair in replacements {
            let pair = pair?;
            self.request_kubelet_restart()?;
            pair.store(&self.root)?;
        }
        Ok(())
    }

    fn record_running_units(&mut self) -> Result<(), String> {
        let states = self.fetched.objects.unit_states(&self.root).map_err(|error| error.to_string())?;
        self.notes.record_running(&states, &self.root)
    }

    /// Restarts the units that run with older files, if the node has the restart permit; returns whether a unit was
    /// restarted. Units that start for the first time need no permit.
    pub async fn restart(&mut self) -> bool {
        let states = match self.fetched.objects.unit_states(&self.root) {
            Ok(states) => states,
            Err(error) => {
                self.errors.push(error.to_string());
                return false;
            }
        };
        let permit = self.fetched.restart_permit.as_ref().filter(|_| self.waits_for_permit);
        let wanted = self.notes.wanted(&states);
        let is_permitted = permit.is_none() || permit == wanted.as_ref().map(|wanted| &wanted.mark);
        let units = if is_permitted { self.notes.due(&states) } else { self.notes.first_starts(&states) };
        let restarts = !units.is_empty();
        if let Err(problem) = restart(&mut self.notes, units, &states, &self.commands, &self.root).await {
            tracing::warn!(problem, "restarting a unit failed");
            self.errors.push(problem);
        }
        self.waiting = self.notes.wanted(&states).filter(|_| permit.is_some());
        restarts
    }

    /// Requests a restart of the kubelet, which also survives a restart of the agent.
    ///
    /// # Errors
    /// The request can't be saved.
    pub fn request_kubelet_restart(&mut self) -> Result<(), String> {
        self.notes.request_kubelet_restart(&self.root)
    }

    /// The trust bundle in the node's objects.
    #[must_use]
    pub fn bundle(&self) -> Option<String> {
        let objects = [&self.fetched.objects.secret, &self.fetched.objects.config];
        let files = objects.into_iter().flatten().flat_map(|wanted| &wanted.files);
        let bundle = files.filter(|file| BUNDLES.contains(&file.path.as_str())).map(|file| &file.content).next();
        String::from_utf8(bundle?.clone()).ok()
    }

    /// The fingerprint of the CA that must issue the kubelet's certificates.
    #[must_use]
    pub fn kubelet_ca(&self) -> Option<String> {
        self.fetched.kubelet_ca.clone()
    }

    /// Updates the trust bundle in a kubeconfig that the kubelet wrote itself when it joined with a token.
    fn update_kubeconfig_bundle(&self) -> Result<Option<String>, String> {
        let Some(bundle) = self.bundle() else { return Ok(None) };
        let objects = [&self.fetched.objects.secret, &self.fetched.objects.config];
        let is_ours = |path: &str| {
            objects.iter().copied().flatten().flat_map(|wanted| &wanted.files).any(|file| file.path == path)
        };
        for path in KUBELET_KUBECONFIGS.into_iter().filter(|path| !is_ours(path)) {
            let found = self.root.read(path).map_err(|error| format!("{path}: {error}"))?;
            let Some(content) = found.and_then(|found| with_bundle(&found, &bundle)) else { continue };
            let (user, group) = ("root".to_owned(), "root".to_owned());
            let file = NodeFile { path: path.to_owned(), mode: 0o600, user, group, content };
            self.root.write(&file).map_err(|error| format!("{path}: {error}"))?;
            return Ok(Some(path.to_owned()));
        }
        Ok(None)
    }

    /// Checks that the files on the node are unchanged.
    pub fn verify(&mut self) {
        self.applied.verify(&self.root, &self.fetched.objects);
    }

    /// Returns whether the last sync had no error.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.errors.is_empty() && self.applied.errors.is_empty()
    }

    /// Builds the agent report.
    #[must_use]
    pub fn report(&mut self, credential: CredentialKind, more: Vec<String>, waits: Option<String>) -> NodeReport {
        let errors = self.fetched.rejected.iter().chain(&self.applied.errors).chain(&self.errors).cloned().chain(more);
        let errors = errors.map(|error| error.chars().take(LONGEST_ERROR).collect()).collect();
        let etcd_restart = self.notes.etcd.as_ref().and_then(super::notes::EtcdRestart::completed).map(str::to_owned);
        let manual_command = self.commands.none && etcd_restart != self.fetched.etcd_restart;
        let manual_command = manual_command.then(|| etcd::MANUAL_RESTART.to_owned());
        NodeReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            credential,
            secret: self.applied.secret.clone(),
            config: self.applied.config.clone(),
            changed: self.changed,
            errors,
            waits: waits.into_iter().collect(),
            pending: self.pending.values().cloned().chain(manual_command).collect(),
            etcd_restart,
            restart: self.waiting.clone(),
            kubelet: self.kubelet(),
        }
    }

    fn kubelet(&mut self) -> KubeletReport {
        // The boot time moves with the clock, so the start time is read once for each process.
        let running = process::kubelet();
        if self.kubelet.map(|(process, _)| process) != running {
            self.kubelet = running.map(|process| (process, process.started()));
        }
        let leaf = |kind: Kind| {
            let pair = self.root.read(&kind.link()).ok().flatten()?;
            kubelet_certificates::report(std::str::from_utf8(&pair).ok()?)
        };
        KubeletReport {
            started: self.kubelet.and_then(|(_, started)| started),
            client: leaf(Kind::Client),
            server: leaf(Kind::Server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::Objects;
    use crate::files::tests::root;
    use crate::index::DesiredFiles;

    /// Objects with the kubelet's configuration and a restart permit.
    fn fetched(content: &str, permit: Option<&str>) -> Fetched {
        let (user, group) = ("root".to_owned(), "root".to_owned());
        let path = "/var/lib/kubelet/config.yaml".to_owned();
        let file = NodeFile { path, mode: 0o600, user, group, content: content.as_bytes().to_vec() };
        let config = Some(DesiredFiles { checksum: content.to_owned(), files: vec![file] });
        let objects = Objects { secret: None, config };
        Fetched { objects, restart_permit: permit.map(str::to_owned), ..Fetched::default() }
    }

    #[tokio::test]
    async fn writes_files_at_once_and_restarts_with_the_permit() {
        let (_folder, root) = root();
        let commands =
            Commands { kubelet: String::new(), unit: String::new(), kubelet_health: String::new(), none: true };
        let mut node = LocalNode::new(root, commands);
        node.waits_for_permit = true;
        let now = Timestamp::UNIX_EPOCH;
        node.sync(fetched("a", Some("")), now).await;
        let report = |node: &mut LocalNode| node.report(CredentialKind::Renewed, vec![], None);
        assert_eq!(report(&mut node).restart, None, "the running kubelet was started with these files");
        node.sync(fetched("b", Some("")), now).await;
        let reported = report(&mut node);
        assert_eq!((reported.config.as_deref(), reported.errors.as_slice()), (Some("b"), [].as_slice()));
        let wanted = reported.restart.unwrap();
        assert_eq!(wanted.units, ["kubelet"]);
        node.sync(fetched("b", Some("earlier permit")), now).await;
        assert_eq!(report(&mut node).restart.as_ref(), Some(&wanted));
        node.sync(fetched("b", Some(&wanted.mark)), now).await;
        assert_eq!(report(&mut node).restart, None);
        // A worker node, which has no permit annotation, and a user with --once don't wait.
        node.sync(fetched("c", None), now).await;
        assert_eq!(report(&mut node).restart, None);
        node.waits_for_permit = false;
        node.sync(fetched("d", Some("")), now).await;
        assert_eq!(report(&mut node).restart, None);
    }
}
