//! The cluster on which everything is rotated, with Keyplane in a management cluster beside it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::boot::owners_kubectl;
use crate::installation::{FIRST_REPLICA, Installation, PATIENCE, bootable_cluster_spec};
use crate::kubectl::{Kubectl, documents};
use crate::lab::Lab;
use crate::load_balancer::{Backend, LoadBalancer};
use crate::machine::{Machine, lab_kubelet_settings};
use crate::operator::Operator;
use crate::process::Process;
use crate::wait::eventually;
use crate::{distribute, image, join};

/// The ClusterSpec.
pub const CLUSTER: &str = "rotated";

/// Its pool of workers.
pub const POOL: &str = "workers";

/// The CertificatePolicy, where there is one.
const POLICY: &str = "rotated";

/// A machine that a test and the load use from threads of their own.
pub type SharedMachine = Arc<Mutex<Machine>>;

/// How large the cluster is, and what it is told.
#[derive(Clone, Debug)]
pub struct Size {
    /// How many control-plane machines: `cp1` and so on.
    pub control_plane: u8,
    /// How many workers: `worker1` and so on.
    pub workers: u8,
    /// The spec of a CertificatePolicy that the cluster refers to, if any.
    pub policy: Option<Value>,
    /// What is merged into the ClusterSpec's spec.
    pub patch: Value,
}

impl Size {
    /// The least that shows everything.
    #[must_use]
    pub fn small() -> Self {
        Self { control_plane: 1, workers: 1, policy: None, patch: json!({}) }
    }

    /// Three control-plane machines and two workers.
    #[must_use]
    pub fn whole() -> Self {
        Self { control_plane: 3, workers: 2, ..Self::small() }
    }

    /// The same with Secrets that are stored encrypted.
    #[must_use]
    pub fn with_encryption_at_rest(mut self) -> Self {
        merge(&mut self.patch, &json!({"encryptionAtRest": {"provider": "secretbox", "resources": ["secrets"]}}));
        self
    }
}

/// The management cluster with Keyplane, and the cluster that it made. All of it goes when this is dropped.
pub struct Scene {
    agents: BTreeMap<String, Process>,
    target: Kubectl,
    /// Keyplane and its cluster.
    pub installation: Installation,
    control_plane: Vec<SharedMachine>,
    workers: Vec<SharedMachine>,
    balancer: LoadBalancer,
    // Last: everything else lives in it.
    lab: Lab,
}

impl Scene {
    /// Brings everything up, and has an agent on each machine.
    ///
    /// # Errors
    /// When something does not come up; what there is of it is then removed.
    pub fn set_up(size: &Size, tell: &dyn Fn(&str)) -> Result<Self> {
        let lab = Lab::start()?;
        let witness = image::witness(lab.parts())?;
        let images = [image::for_whole_cluster(lab.parts())?, vec![witness.clone()]].concat();
        let worker_images = [image::for_worker(lab.parts())?, vec![witness]].concat();
        let machines = |prefix: &str, count: u8| -> Result<Vec<_>> {
            (1..=count).map(|number| lab.machine(&format!("{prefix}{number}"))).collect()
        };
        let mut control_plane = machines("cp", size.control_plane)?;
        let mut workers = machines("worker", size.workers)?;
        let backends: Vec<_> = control_plane.iter().map(Backend::from).collect();
        let balancer = lab.load_balancer("lb", &backends)?;
        tell("the machines and a load balancer are there; starting a management cluster and Keyplane in it");
        let mut installation = Installation::start(&lab)?;
        let admin = installation.admin().clone();
        let mut size = size.clone();
        let server = installation.management.server_for_machines();
        merge(&mut size.patch, &json!({"nodeAgent": {"managementServer": server}}));
        admin.apply(&objects(&size, &control_plane, &workers, &balancer.address()))?;
        installation.wait_for(CLUSTER, "Rendered")?;
        let target = owners_kubectl(&lab, &admin, CLUSTER)?;
        for machine in &mut control_plane {
            let name = machine.name().to_owned();
            tell(&format!("applying the files of {name} and starting containerd and the kubelet"));
            distribute::apply_files(&admin, "default", CLUSTER, machine)?;
            machine.start_containerd()?;
            machine.import_images(&images)?;
            machine.start_kubelet()?;
            eventually(&format!("{name} that is Ready"), PATIENCE, || {
                installation.operator.check_running()?;
                machine.check_kubelet()?;
                target.check_condition(&["node", &name], "Ready")
            })?;
        }
        for worker in &mut workers {
            let name = worker.name().to_owned();
            tell(&format!("{name} joins with its pool's join data"));
            let secret = format!("{CLUSTER}-{POOL}-bootstrap");
            let script = eventually("join data", PATIENCE, || admin.secret_text(&secret, "value"))?;
            join::join(worker, &script, &worker_images)?;
            eventually(&format!("{name} that is Ready"), PATIENCE, || {
                worker.check_kubelet()?;
                target.check_condition(&["node", &name], "Ready")
            })?;
        }
        installation.wait_for(CLUSTER, "Ready")?;
        let shared =
            |machines: Vec<Machine>| machines.into_iter().map(|machine| Arc::new(Mutex::new(machine))).collect();
        let mut scene = Self {
            agents: BTreeMap::new(),
            target,
            installation,
            control_plane: shared(control_plane),
            workers: shared(workers),
            balancer,
            lab,
        };
        tell("starting an agent on each machine");
        scene.start_agents()?;
        scene.wait_until_applied()?;
        tell("everything is up");
        Ok(scene)
    }

    fn start_agent(&mut self, name: &str) -> Result<()> {
        let admin = self.admin().clone();
        self.replace_agent(name, |machine| machine.start_agent(&admin, CLUSTER))
    }

    /// Starts the agent of each machine with the credential that Keyplane made for it, in place of one that runs.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start_agents(&mut self) -> Result<()> {
        let names: Vec<_> = self.machines().map(|machine| lock(machine).name().to_owned()).collect();
        names.iter().try_for_each(|name| self.start_agent(name))
    }

    /// Every agent is killed as by a crash, and another one is started.
    ///
    /// # Errors
    /// When one does not start.
    pub fn crash_the_agents(&mut self) -> Result<()> {
        let names: Vec<_> = self.agents.keys().cloned().collect();
        names.iter().try_for_each(|name| self.restart_agent(name))
    }

    /// The agent of this machine is killed, if it runs, and another one is started, as at the machine's boot.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart_agent(&mut self, name: &str) -> Result<()> {
        self.replace_agent(name, Machine::restart_agent)
    }

    /// The same with a clock that is an hour ahead.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_agent_ahead(&mut self, name: &str) -> Result<()> {
        self.replace_agent(name, |machine| machine.start_agent_ahead(Duration::from_hours(1)))
    }

    fn replace_agent(&mut self, name: &str, start: impl FnOnce(&Machine) -> Result<Process>) -> Result<()> {
        if let Some(mut agent) = self.agents.remove(name) {
            agent.kill();
        }
        let agent = start(&lock(self.machine(name)?))?;
        self.agents.insert(name.to_owned(), agent);
        Ok(())
    }

    /// Waits until the agents report that the machines have the files that Keyplane has written.
    ///
    /// # Errors
    /// When one does not get there.
    pub fn wait_until_applied(&self) -> Result<()> {
        eventually("machines with all files applied", PATIENCE, || {
            for (kind, field) in [("secrets", "secret"), ("configmaps", "config")] {
                let label = format!("keyplane.io/cluster={CLUSTER},keyplane.io/node");
                let list = self.admin().json(&["get", kind, "-l", &label])?;
                for object in list["items"].as_array().into_iter().flatten() {
                    let metadata = &object["metadata"];
                    let written = &metadata["annotations"]["keyplane.io/content-checksum"];
                    let node = metadata["labels"]["keyplane.io/node"].as_str().unwrap_or_default();
                    let applied = &self.agents_report(node)?[field];
                    ensure!(written == applied, "{} is not applied", metadata["name"]);
                }
            }
            Ok(())
        })
    }

    /// The report that the agent of a machine writes to its Lease.
    fn agents_report(&self, node: &str) -> Result<Value> {
        let lease = self.admin().json(&["get", "lease", &format!("{CLUSTER}-{node}")])?;
        let report = lease["metadata"]["annotations"]["keyplane.io/agent-report"].as_str().unwrap_or("{}").to_owned();
        serde_json::from_str(&report).with_context(|| format!("the agent of {node} reports {report}"))
    }

    /// Keyplane is killed as by a crash, and another one is started.
    ///
    /// # Errors
    /// When it does not start.
    pub fn crash_the_operator(&mut self) -> Result<()> {
        self.installation.operator.kill();
        self.installation.operator = Operator::start(&self.lab, &self.installation.user, FIRST_REPLICA)?;
        Ok(())
    }

    /// The management cluster is gone with Keyplane and all that was in it; another one with Keyplane and nothing else takes
    /// its place, at another address. The agents know the former one.
    ///
    /// # Errors
    /// When the other one does not start.
    pub fn lose_the_management_cluster(&mut self) -> Result<()> {
        self.installation.operator.kill();
        self.installation.management.lose()?;
        self.installation = Installation::start(&self.lab)?;
        Ok(())
    }

    /// The ClusterSpec's name.
    #[must_use]
    pub fn cluster(&self) -> &'static str {
        CLUSTER
    }

    /// kubectl as an administrator of the management cluster.
    #[must_use]
    pub fn admin(&self) -> &Kubectl {
        self.installation.admin()
    }

    /// kubectl as the cluster's owner. While a load runs its kubeconfig is that of now.
    #[must_use]
    pub fn target(&self) -> &Kubectl {
        &self.target
    }

    /// The lab that all is in.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The load balancer before the API servers.
    #[must_use]
    pub fn balancer(&self) -> &LoadBalancer {
        &self.balancer
    }

    /// The control-plane machines.
    #[must_use]
    pub fn control_plane(&self) -> &[SharedMachine] {
        &self.control_plane
    }

    /// The workers.
    #[must_use]
    pub fn workers(&self) -> &[SharedMachine] {
        &self.workers
    }

    /// All machines, the control plane's first.
    pub fn machines(&self) -> impl Iterator<Item = &SharedMachine> {
        self.control_plane.iter().chain(&self.workers)
    }

    /// The machine of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn machine(&self, name: &str) -> Result<&SharedMachine> {
        let found = self.machines().find(|machine| lock(machine).name() == name);
        found.with_context(|| format!("there is no machine {name}"))
    }

    /// The status of the ClusterSpec.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn status(&self) -> Result<Value> {
        Ok(self.admin().json(&["get", "clusterspec", CLUSTER])?["status"].clone())
    }
}

/// The machine, for as long as the guard is there. One whose user panicked is still a machine.
pub fn lock(machine: &SharedMachine) -> MutexGuard<'_, Machine> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What differs goes into the object; all else in it stays.
fn merge(object: &mut Value, patch: &Value) {
    match (object, patch.as_object()) {
        (Value::Object(fields), Some(patch)) => {
            for (name, value) in patch {
                merge(fields.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (object, _) => *object = patch.clone(),
    }
}

/// What the user applies.
fn objects(size: &Size, control_plane: &[Machine], workers: &[Machine], endpoint: &str) -> String {
    let mut cluster = bootable_cluster_spec(CLUSTER, endpoint, control_plane);
    // The number of tracked connections belongs to the kernel that all machines share.
    cluster["spec"]["addons"] = json!({
        "kubeProxy": {"mode": "nftables", "config": {"conntrack": {"maxPerCore": 0}}},
        "flannel": {"enabled": true},
    });
    let mut all = vec![];
    if let Some(spec) = &size.policy {
        all.push(json!({
            "apiVersion": "keyplane.io/v1alpha1", "kind": "CertificatePolicy",
            "metadata": {"name": POLICY, "namespace": "default"}, "spec": spec,
        }));
        cluster["spec"]["certificatePolicyRef"] = json!({"name": POLICY});
    }
    merge(&mut cluster["spec"], &size.patch);
    all.push(cluster);
    if let Some(first) = workers.first() {
        let machine = |worker: &Machine| json!({"name": worker.name(), "addresses": [worker.address()]});
        all.push(json!({
            "apiVersion": "keyplane.io/v1alpha1", "kind": "NodePool",
            "metadata": {"name": POOL, "namespace": "default"},
            "spec": {
                "clusterRef": {"name": CLUSTER},
                "machines": workers.iter().map(machine).collect::<Vec<_>>(),
                "kubelet": lab_kubelet_settings(first),
            },
        }));
    }
    documents(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_keeps_what_it_does_not_name() {
        let mut spec = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut spec, &json!({"a": {"c": 3, "e": {"f": 4}}, "d": [2]}));
        assert_eq!(spec, json!({"a": {"b": 1, "c": 3, "e": {"f": 4}}, "d": [2]}));
    }
}
