//! Three control-plane nodes in three failure domains behind a load balancer: they join one after the other, one is lost,
//! and another one takes its place.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use keyplane_e2e::boot::{owners_kubectl, start_node};
use keyplane_e2e::etcdctl::etcdctl;
use keyplane_e2e::image::{self, Image};
use keyplane_e2e::installation::{Installation, PATIENCE};
use keyplane_e2e::load_balancer::Backend;
use keyplane_e2e::machine::{MachineOptions, lab_kubelet_settings};
use keyplane_e2e::{Kubectl, Lab, Machine, eventually};
use serde_json::{Value, json};

const CLUSTER: &str = "three";

/// A machine's host number, which is its address's last one: known before the machine is there.
fn host(name: &str) -> u8 {
    10 + name.trim_start_matches("cp").parse::<u8>().unwrap_or_default()
}

struct Three<'a> {
    lab: &'a Lab,
    installation: Installation,
    admin: Kubectl,
    images: Vec<Image>,
    machines: BTreeMap<&'static str, Machine>,
    began: Instant,
}

pub(crate) fn control_plane_nodes_join_one_after_the_other_and_a_lost_one_is_named_and_replaced() -> Result<()> {
    let lab = Lab::start()?;
    let address = |name: &str| lab.site().subnet.address(host(name));
    let backends = ["cp1", "cp2", "cp3", "cp4"].map(|name| Backend { name: name.to_owned(), address: address(name) });
    let balancer = lab.load_balancer("balancer", &backends)?;
    let installation = Installation::start(&lab)?;
    let mut three = Three {
        admin: installation.admin().clone(),
        images: image::all(lab.parts())?,
        lab: &lab,
        installation,
        machines: BTreeMap::new(),
        began: Instant::now(),
    };
    three.make_machine("cp1")?;
    let nodes = |nodes: &[(&str, &str)]| {
        let node = |(name, domain): &(&str, &str)| json!({"name": name, "addresses": [address(name)], "failureDomain": domain});
        nodes.iter().map(node).collect::<Vec<_>>()
    };
    let kubelet = lab_kubelet_settings(&three.machines["cp1"]);
    let mut spec = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "ClusterSpec", "metadata": {"name": CLUSTER},
        "spec": {
            "kubernetesVersion": "v1.37.2",
            "controlPlaneEndpoint": {"host": balancer.address()},
            "controlPlane": {"nodes": nodes(&[("cp1", "a"), ("cp2", "b"), ("cp3", "c")]), "kubelet": kubelet},
            "addons": {"coreDNS": {"enabled": false}, "kubeProxy": {"enabled": false}},
            "network": {"podCIDRs": ["10.244.0.0/16"]},
        },
    });
    three.admin.apply(&spec.to_string())?;
    three.installation.wait_for(CLUSTER, "Rendered")?;
    three.start("cp1")?;
    // cp2 is declared before cp3, but its machine is not there: cp3 joins the one that is.
    three.make_machine("cp3")?;
    three.wait_until_added("cp3")?;
    three.start("cp3")?;
    three.make_machine("cp2")?;
    three.wait_until_added("cp2")?;
    three.start("cp2")?;
    three.wait_until_ready()?;
    three.tell("all three are Ready");
    three.members_are("cp2", &["cp1", "cp2", "cp3"])?;
    three.admin.check_condition(&["clusterspec", CLUSTER], "SpreadAcrossFailureDomains")?;
    let target = owners_kubectl(&lab, &three.admin, CLUSTER)?;
    let zones =
        target.run(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.labels.topology\\.kubernetes\\.io/zone}"])?;
    ensure!(zones == "a b c", "{zones}");
    let manifests = three.etcd_manifests()?;
    ensure!(
        manifests["cp3"].contains("--initial-cluster-state=existing") && !manifests["cp3"].contains("cp2="),
        "{manifests:?}"
    );

    // The first one is lost, which is also the super-admin's.
    three.machines.remove("cp1").context("no cp1")?.destroy()?;
    three.tell("cp1 is destroyed");
    eventually("API without the first node", PATIENCE, || {
        target.run(&["create", "configmap", "after", "--from-literal=a=b"])
    })?;
    eventually("status that names cp1", PATIENCE, || {
        let told = three.admin.complaint(&["clusterspec", CLUSTER], "ControlPlaneNodesReady")?;
        ensure!(told.contains("NodeMissing: cp1: the Node is not Ready, its etcd member does not answer"), "{told}");
        Ok(())
    })?;
    three.admin.check_condition(&["clusterspec", CLUSTER], "ControlPlaneAvailable")?;
    let told = three.admin.complaint(&["clusterspec", CLUSTER], "Ready")?;
    ensure!(told.contains("NodeMissing: cp1"), "{told}");
    three.tell("the status names it");

    spec["spec"]["controlPlane"]["nodes"] = json!(nodes(&[("cp2", "b"), ("cp3", "c"), ("cp4", "a")]));
    three.admin.apply(&spec.to_string())?;
    three.make_machine("cp4")?;
    three.wait_until_added("cp4")?;
    three.tell("cp1 is out of etcd, cp4 is added");
    three.start("cp4")?;
    three.wait_until_ready()?;
    three.tell("cp4 has taken its place");
    three.members_are("cp4", &["cp2", "cp3", "cp4"])?;
    // Who runs was not touched, what was cp1's is gone, and the next first node has the super-admin's kubeconfig.
    let after = three.etcd_manifests()?;
    ensure!(["cp2", "cp3"].iter().all(|name| after[*name] == manifests[*name]), "{after:?}");
    for object in ["secret/three-cp1-pki", "configmap/three-cp1-config"] {
        ensure!(three.admin.run(&["get", object]).is_err(), "{object} is still there");
    }
    let first = three.admin.json(&["get", "secret", "three-cp2-pki"])?;
    ensure!(first["data"]["super-admin.conf"].is_string());
    // The Node in the target is its owner's to delete.
    target.run(&["delete", "node", "cp1"])?;
    let events = three.admin.run(&["get", "events"])?;
    for reason in ["EtcdLearnerAdded", "EtcdMemberPromoted", "EtcdMemberRemoved", "NodeRemoved"] {
        ensure!(events.contains(reason), "no Event {reason} in:\n{events}");
    }
    Ok(())
}

impl Three<'_> {
    fn tell(&self, what: &str) {
        eprintln!("{:6.1} s  {what}", self.began.elapsed().as_secs_f32());
    }

    fn make_machine(&mut self, name: &'static str) -> Result<()> {
        let options = MachineOptions { host_number: Some(host(name)), ..MachineOptions::default() };
        self.machines.insert(name, self.lab.machine_with(name, &options)?);
        Ok(())
    }

    /// Carries what Keyplane has written by now to the machine, and starts it.
    fn start(&mut self, name: &str) -> Result<()> {
        let began = self.began;
        let machine = self.machines.get_mut(name).context("no such machine")?;
        let pods = format!("10.244.{}.0/24", host(name));
        start_node(&self.installation, CLUSTER, machine, &self.images, &pods, &|what| {
            eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
        })
    }

    /// Until its member is added to etcd, and its ConfigMap says with whom it starts.
    fn wait_until_added(&mut self, name: &str) -> Result<()> {
        let config_map = format!("{CLUSTER}-{name}-config");
        eventually(&format!("{name} that may join"), PATIENCE, || {
            self.installation.operator.check_running()?;
            let known = self.admin.run(&[
                "get",
                "configmap",
                &config_map,
                "-o",
                "jsonpath={.metadata.annotations.keyplane\\.io/etcd-member}",
            ])?;
            ensure!(known == "Added", "{known}: {}", self.status()?["conditions"]);
            Ok(())
        })?;
        self.tell(&format!("{name} is added to etcd"));
        Ok(())
    }

    fn status(&self) -> Result<Value> {
        Ok(self.admin.json(&["get", "clusterspec", CLUSTER])?["status"].clone())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        eventually("three of three, and Ready", PATIENCE, || {
            for machine in self.machines.values_mut() {
                machine.check_kubelet()?;
            }
            self.admin.check_condition(&["clusterspec", CLUSTER], "Ready")?;
            let status = self.admin.json(&["get", "clusterspec", CLUSTER])?["status"].clone();
            ensure!(status["readyNodes"] == 3 && status["desiredNodes"] == 3, "{status}");
            Ok(())
        })
    }

    /// etcd itself says who is in it, each with a vote.
    fn members_are(&self, on: &str, names: &[&str]) -> Result<()> {
        let members = etcdctl(&self.machines[on], &["member", "list", "-w", "json"])?;
        let members: Value = serde_json::from_str(&members)?;
        let members = members["members"].as_array().context("no members")?;
        let mut found: Vec<_> = members.iter().filter_map(|member| member["name"].as_str()).collect();
        found.sort_unstable();
        ensure!(found == names && members.iter().all(|member| member["isLearner"] != true), "{members:?}");
        Ok(())
    }

    /// etcd.yaml of each node, as Keyplane has written it.
    fn etcd_manifests(&self) -> Result<BTreeMap<String, String>> {
        let list = self.admin.json(&[
            "get",
            "configmaps",
            "-l",
            &format!("keyplane.io/cluster={CLUSTER},keyplane.io/node"),
        ])?;
        let items = list["items"].as_array().context("no list")?.iter();
        let manifest = |item: &Value| {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (word(&item["metadata"]["labels"]["keyplane.io/node"]), word(&item["data"]["etcd.yaml"]))
        };
        Ok(items.map(manifest).collect())
    }
}
