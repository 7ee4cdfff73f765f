//! One pass: carry, restart, and say how it went.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::sleep;

use super::authorities::strange;
use super::carry::{Carried, Objects, carry, carry_before_static_pods};
use super::etcd;
use super::files::Root;
use super::index::MachineFile;
use super::kubelet::{given as given_client, prune};
use super::leaves::{self, Kind};
use super::management::Fetched;
use super::own_kubeconfig::{KUBELET_KUBECONFIGS, with_authorities};
use super::process::{self, Process};
use super::restart::{Commands, Notes, restart};
use super::units;
use keyplane_core::agent_report::{CredentialKind, KubeletReport, NodeReport, WantedRestart};

/// The bundles that a kubelet verifies its clients with, in both layouts: the machine's `ca.crt`.
const BUNDLES: [&str; 2] = ["/etc/kubernetes/pki/ca.crt", "/var/lib/kubelet/ca.crt"];

/// So long an error may be in a report, in characters: an annotation has room for all of them.
const LONGEST_ERROR: usize = 300;

/// A kubelet that was started anew has by then told the API server of its static pods. Until it has, it waits for the API
/// server before it starts one, and so for etcd beside it if that is the one.
const SETTLE: Duration = Duration::from_secs(10);

/// The machine.
pub struct Machine {
    /// Its files.
    pub root: Root,
    /// How its units are restarted.
    pub commands: Commands,
    notes: Notes,
    fetched: Fetched,
    carried: Carried,
    trouble: Vec<String>,
    changed: Option<Timestamp>,
    /// Whether it waits for its turn with restarts. A person who runs the agent once is not kept waiting.
    pub takes_turns: bool,
    /// The restart that waits for its turn.
    waiting: Option<WantedRestart>,
    /// What a person has to do, by path.
    pending: BTreeMap<String, String>,
    kubelet: Option<(Process, Option<Timestamp>)>,
}

impl Machine {
    /// As it was left.
    #[must_use]
    pub fn new(root: Root, commands: Commands) -> Self {
        let notes = Notes::load(&root);
        Self {
            root,
            commands,
            notes,
            fetched: Fetched::default(),
            carried: Carried::default(),
            trouble: vec![],
            changed: None,
            takes_turns: false,
            waiting: None,
            pending: BTreeMap::new(),
            kubelet: None,
        }
    }

    /// Brings the machine to what was fetched.
    pub async fn bring(&mut self, fetched: Fetched, now: Timestamp) {
        self.fetched = fetched;
        self.trouble.clear();
        self.refuse_strangers();
        if let Err(problem) = self.note_what_runs() {
            self.trouble.push(problem);
            return;
        }
        let mut before = carry_before_static_pods(&self.root, &self.fetched.objects);
        match self.follow_bundle() {
            Ok(path) => before.changed.extend(path),
            Err(problem) => self.trouble.push(problem),
        }
        if let Err(problem) = self.take_client() {
            self.trouble.push(problem);
        }
        // What is half there is not started.
        if before.errors.is_empty() && self.restart().await && !self.commands.none {
            sleep(SETTLE).await;
        }
        self.carried = carry(&self.root, &self.fetched.objects).after(before);
        self.trouble.extend(prune(&self.root).err());
        let changed = self.carried.changed.clone();
        if !changed.is_empty() {
            self.changed = Timestamp::from_second(now.as_second()).ok();
            tracing::info!(files = changed.join(" "), "wrote");
        }
        if self.is_well() && self.fetched.refused.is_empty() {
            self.follow_etcd().await;
        }
        for path in &self.carried.replaced {
            if let Some(cure) = units::by_hand(path) {
                self.pending.insert(path.clone(), format!("{path} has changed: {cure}"));
            }
        }
    }

    /// Starts etcd anew, if it is this machine's turn. What is half there is not read.
    async fn follow_etcd(&mut self) {
        let Some(mark) = self.fetched.etcd_restart.clone() else { return };
        let restarted = etcd::restart(&mut self.notes, &mark, self.commands.none, &self.root).await;
        self.trouble.extend(restarted.err());
    }

    /// Carries nothing whose authorities can't be this machine's.
    fn refuse_strangers(&mut self) {
        let Fetched { objects, revoked, .. } = &self.fetched;
        let wanted: Vec<_> = objects.secret.iter().chain(&objects.config).flat_map(|wanted| &wanted.files).collect();
        let strange = strange(&wanted, |path| self.root.read(path).ok().flatten(), revoked);
        if let Some(problem) = strange {
            self.fetched.objects = Objects::default();
            self.fetched.kubelet_authority = None;
            self.fetched.refused.push(problem);
        }
    }

    /// Gives the kubelet the client certificate that came with the files, if its own is refused. The restart is noted first:
    /// an agent that is killed before it leaves it to the next one.
    fn take_client(&mut self) -> Result<(), String> {
        let Some(bundle) = self.bundle() else { return Ok(()) };
        let files = self.fetched.objects.secret.iter().flat_map(|wanted| &wanted.files);
        let given = files.filter(|file| KUBELET_KUBECONFIGS.contains(&file.path.as_str()));
        let given: Vec<_> =
            given.filter_map(|file| given_client(&self.root, &file.content, &bundle).transpose()).collect();
        for pair in given {
            let pair = pair?;
            self.want_kubelet()?;
            pair.put(&self.root)?;
        }
        Ok(())
    }

    fn note_what_runs(&mut self) -> Result<(), String> {
        let states = self.fetched.objects.unit_states(&self.root).map_err(|error| error.to_string())?;
        self.notes.begin(&states, &self.root)
    }

    /// Restarts what was started with other files, if it is the machine's turn, and says whether it did. What starts for
    /// the first time does so at once.
    pub async fn restart(&mut self) -> bool {
        let states = match self.fetched.objects.unit_states(&self.root) {
            Ok(states) => states,
            Err(error) => {
                self.trouble.push(error.to_string());
                return false;
            }
        };
        let turn = self.fetched.restart_turn.as_ref().filter(|_| self.takes_turns);
        let wanted = self.notes.wanted(&states);
        let is_its_turn = turn.is_none() || turn == wanted.as_ref().map(|wanted| &wanted.mark);
        let units = if is_its_turn { self.notes.due(&states) } else { self.notes.first_starts(&states) };
        let restarts = !units.is_empty();
        if let Err(problem) = restart(&mut self.notes, units, &states, &self.commands, &self.root).await {
            tracing::warn!(problem, "a unit is not well");
            self.trouble.push(problem);
        }
        self.waiting = self.notes.wanted(&states).filter(|_| turn.is_some());
        restarts
    }

    /// Has the kubelet restarted next, also by an agent that takes this one's place.
    ///
    /// # Errors
    /// If it can't be noted.
    pub fn want_kubelet(&mut self) -> Result<(), String> {
        self.notes.want_kubelet(&self.root)
    }

    /// The machine's bundle, if its objects have one.
    #[must_use]
    pub fn bundle(&self) -> Option<String> {
        let objects = [&self.fetched.objects.secret, &self.fetched.objects.config];
        let files = objects.into_iter().flatten().flat_map(|wanted| &wanted.files);
        let bundle = files.filter(|file| BUNDLES.contains(&file.path.as_str())).map(|file| &file.content).next();
        String::from_utf8(bundle?.clone()).ok()
    }

    /// The fingerprint of the authority that the kubelet's certificates are to come from.
    #[must_use]
    pub fn kubelet_authority(&self) -> Option<String> {
        self.fetched.kubelet_authority.clone()
    }

    /// A kubelet that joined with a token has written its own kubeconfig, with the authorities of that day.
    fn follow_bundle(&self) -> Result<Option<String>, String> {
        let Some(bundle) = self.bundle() else { return Ok(None) };
        let objects = [&self.fetched.objects.secret, &self.fetched.objects.config];
        let is_ours = |path: &str| {
            objects.iter().copied().flatten().flat_map(|wanted| &wanted.files).any(|file| file.path == path)
        };
        for path in KUBELET_KUBECONFIGS.into_iter().filter(|path| !is_ours(path)) {
            let found = self.root.read(path).map_err(|error| format!("{path}: {error}"))?;
            let Some(content) = found.and_then(|found| with_authorities(&found, &bundle)) else { continue };
            let (user, group) = ("root".to_owned(), "root".to_owned());
            let file = MachineFile { path: path.to_owned(), mode: 0o600, user, group, content };
            self.root.write(&file).map_err(|error| format!("{path}: {error}"))?;
            return Ok(Some(path.to_owned()));
        }
        Ok(None)
    }

    /// Looks whether the files are still as they were written.
    pub fn look(&mut self) {
        self.carried.look_again(&self.root, &self.fetched.objects);
    }

    /// Whether it is worth trying again.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.trouble.is_empty() && self.carried.errors.is_empty()
    }

    /// Everything to report.
    #[must_use]
    pub fn report(&mut self, credential: CredentialKind, more: Vec<String>, waits: Option<String>) -> NodeReport {
        let errors = self.fetched.refused.iter().chain(&self.carried.errors).chain(&self.trouble).cloned().chain(more);
        let errors = errors.map(|error| error.chars().take(LONGEST_ERROR).collect()).collect();
        let etcd_restart = self.notes.etcd.as_ref().and_then(etcd::EtcdTurn::done).map(str::to_owned);
        let by_hand = self.commands.none && etcd_restart != self.fetched.etcd_restart;
        let by_hand = by_hand.then(|| etcd::BY_HAND.to_owned());
        NodeReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            credential,
            secret: self.carried.secret.clone(),
            config: self.carried.config.clone(),
            changed: self.changed,
            errors,
            waits: waits.into_iter().collect(),
            pending: self.pending.values().cloned().chain(by_hand).collect(),
            etcd_restart,
            restart: self.waiting.clone(),
            kubelet: self.kubelet(),
        }
    }

    fn kubelet(&mut self) -> KubeletReport {
        // The time of the boot moves with the clock: it is asked for once for each process.
        let running = process::kubelet();
        if self.kubelet.map(|(process, _)| process) != running {
            self.kubelet = running.map(|process| (process, process.started()));
        }
        let leaf = |kind: Kind| {
            let pair = self.root.read(&kind.link()).ok().flatten()?;
            leaves::report(std::str::from_utf8(&pair).ok()?)
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
    use crate::carry::Objects;
    use crate::files::tests::root;
    use crate::index::Wanted;

    /// The kubelet's configuration, and for which restart it is the machine's turn.
    fn fetched(content: &str, turn: Option<&str>) -> Fetched {
        let (user, group) = ("root".to_owned(), "root".to_owned());
        let path = "/var/lib/kubelet/config.yaml".to_owned();
        let file = MachineFile { path, mode: 0o600, user, group, content: content.as_bytes().to_vec() };
        let config = Some(Wanted { checksum: content.to_owned(), files: vec![file] });
        let objects = Objects { secret: None, config };
        Fetched { objects, restart_turn: turn.map(str::to_owned), ..Fetched::default() }
    }

    #[tokio::test]
    async fn files_come_at_once_and_a_restart_waits_for_its_turn() {
        let (_folder, root) = root();
        let commands =
            Commands { kubelet: String::new(), unit: String::new(), kubelet_health: String::new(), none: true };
        let mut machine = Machine::new(root, commands);
        machine.takes_turns = true;
        let now = Timestamp::UNIX_EPOCH;
        machine.bring(fetched("a", Some("")), now).await;
        let report = |machine: &mut Machine| machine.report(CredentialKind::Renewed, vec![], None);
        assert_eq!(report(&mut machine).restart, None, "what runs was started with it");
        machine.bring(fetched("b", Some("")), now).await;
        let told = report(&mut machine);
        assert_eq!((told.config.as_deref(), told.errors.as_slice()), (Some("b"), [].as_slice()));
        let wanted = told.restart.unwrap();
        assert_eq!(wanted.units, ["kubelet"]);
        machine.bring(fetched("b", Some("of before")), now).await;
        assert_eq!(report(&mut machine).restart.as_ref(), Some(&wanted));
        machine.bring(fetched("b", Some(&wanted.mark)), now).await;
        assert_eq!(report(&mut machine).restart, None);
        // A worker, of which nobody says whose turn it is, and a person wait for nobody.
        machine.bring(fetched("c", None), now).await;
        assert_eq!(report(&mut machine).restart, None);
        machine.takes_turns = false;
        machine.bring(fetched("d", Some("")), now).await;
        assert_eq!(report(&mut machine).restart, None);
    }
}
