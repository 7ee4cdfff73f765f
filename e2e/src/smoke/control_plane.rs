//! The control plane as its owner sees it: Nodes, Leases, etcd, leaders.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::report::Report;
use super::scene::{CLUSTER, Scene};
use crate::etcdctl::etcdctl;
use crate::machine::Machine;
use crate::wait::{PATIENCE, eventually};

/// The two components of which one instance leads.
const ELECTED: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// The control plane with all its machines.
pub(super) fn check(scene: &Scene, report: &mut Report) {
    report.step("all Nodes are Ready and have the roles and zones that were declared", || {
        for node in scene.nodes() {
            scene.target().check_condition(&["node", node], "Ready")?;
        }
        let zones: Vec<_> = scene
            .control_plane()
            .iter()
            .map(|machine| {
                let node = scene.target().json(&["get", "node", machine.name()])?;
                let labels = &node["metadata"]["labels"];
                ensure!(labels["node-role.kubernetes.io/control-plane"] == "", "{labels}");
                Ok(labels["topology.kubernetes.io/zone"].as_str().unwrap_or_default().to_owned())
            })
            .collect::<Result<_>>()?;
        ensure!(zones == ["a", "b", "c"], "{zones:?}");
        scene.kubectl(&["get", "nodes", "-o", "wide", "-L", "topology.kubernetes.io/zone"])
    });
    report.step("each Node describes healthy conditions and renews its Lease", || {
        let told: Vec<_> = scene.nodes().map(|node| healthy(scene, node)).collect::<Result<_>>()?;
        Ok(told.join("\n"))
    });
    report.step("etcd has three members that vote", || {
        let members = members(scene, 3)?;
        ensure!(members.len() == 3 && members.iter().all(|member| member["isLearner"].is_null()), "{members:?}");
        Ok(names(&members))
    });
    report.step("Keyplane calls the cluster Ready and spread across failure domains", || {
        let admin = scene.management();
        for condition in ["Ready", "SpreadAcrossFailureDomains"] {
            admin.check_condition(&["clusterspec", CLUSTER], condition)?;
        }
        admin.run(&["get", "kcs,knp"])
    });
    report.step("CoreDNS, kube-proxy and Flannel run as they should", || {
        eventually("add-ons", PATIENCE, || {
            scene.management().check_condition(&["clusterspec", CLUSTER], "AddonsReady")
        })?;
        scene.kubectl(&["get", "deployments,daemonsets", "-A"])
    });
    // Its Pods were placed when there was one machine; kubeadm's documentation says the same of a cluster that grows.
    report.step("the cluster's DNS spreads over the machines that have joined", || {
        scene.kubectl(&["rollout", "restart", "deployment/coredns", "-n", "kube-system"])?;
        scene.kubectl(&["rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=180s"])?;
        eventually("DNS on two machines", PATIENCE, || {
            let pods = scene.kubectl(&[
                "get",
                "pods",
                "-n",
                "kube-system",
                "-l",
                "k8s-app=kube-dns",
                "-o",
                "jsonpath={range .items[*]}{.spec.nodeName}{\"\\n\"}{end}",
            ])?;
            let nodes: BTreeSet<_> = pods.lines().filter(|line| !line.is_empty()).collect();
            ensure!(nodes.len() == 2 && pods.lines().count() == 2, "{pods}");
            Ok(pods)
        })
    });
}

/// Whoever leads is killed, and another takes the Lease.
pub(super) fn check_leader_election(scene: &Scene, report: &mut Report) {
    for component in ELECTED {
        report.step(&format!("{component} has another leader once the first is killed"), || {
            let before = holder(scene, component)?;
            let machine = leaders_machine(scene, &before)?;
            machine.run(&["pkill", "--signal", "KILL", "--full", &format!("^{component} ")])?;
            let after = eventually("another holder of the Lease", PATIENCE, || {
                let now = holder(scene, component)?;
                ensure!(now != before, "it is still {before}");
                Ok(now)
            })?;
            Ok(format!("{before}\n{after}"))
        });
    }
}

/// The control plane with a machine less.
pub(super) fn check_what_is_left(scene: &Scene, report: &mut Report) {
    report.step("the API is served, and takes what is written", || {
        eventually("write", PATIENCE, || scene.kubectl(&["create", "configmap", "after", "--from-literal=a=b"]))?;
        scene.kubectl(&["get", "--raw", "/readyz"])
    });
    report.step("both leaders are on machines that are there", || {
        let told: Vec<_> = ELECTED
            .iter()
            .map(|component| {
                eventually(&format!("leader of {component}"), PATIENCE, || {
                    let holder = holder(scene, component)?;
                    leaders_machine(scene, &holder)?;
                    Ok(format!("{component}: {holder}"))
                })
            })
            .collect::<Result<_>>()?;
        Ok(told.join("\n"))
    });
    report.step("two of three etcd members are healthy", || {
        let machine = scene.any_control_plane()?;
        let health = etcdctl(machine, &["endpoint", "health", "--cluster", "-w", "json"]);
        // etcdctl fails when one member does not answer; its words are what is looked at.
        let text = match health {
            Ok(text) => text,
            Err(error) => format!("{error:#}"),
        };
        let healthy = text.matches("\"health\":true").count();
        ensure!(healthy == 2, "{text}");
        Ok(format!("{healthy} healthy"))
    });
    report.step("Keyplane names the machine that is gone", || {
        let lost = scene.lost().context("no machine was lost")?;
        eventually("its name in a condition", PATIENCE, || {
            let words = scene.management().complaint(&["clusterspec", CLUSTER], "Ready")?;
            ensure!(words.contains(lost), "{words}");
            scene.management().check_condition(&["clusterspec", CLUSTER], "ControlPlaneAvailable")?;
            Ok(words)
        })
    });
}

fn healthy(scene: &Scene, node: &str) -> Result<String> {
    let object = scene.target().json(&["get", "node", node])?;
    let conditions = object["status"]["conditions"].as_array().context("no conditions")?;
    let told: Vec<_> = conditions
        .iter()
        .map(|condition| {
            let kind = condition["type"].as_str().unwrap_or_default();
            let wanted = if kind == "Ready" { "True" } else { "False" };
            ensure!(condition["status"] == wanted, "{node}: {condition}");
            Ok(format!("{kind}={wanted}"))
        })
        .collect::<Result<_>>()?;
    let described = scene.kubectl(&["describe", "node", node])?;
    ensure!(described.contains("RenewTime:"), "{described}");
    let renewed = || -> Result<String> {
        let lease = scene.target().json(&["get", "lease", "-n", "kube-node-lease", node])?;
        Ok(lease["spec"]["renewTime"].as_str().context("a Lease without a time")?.to_owned())
    };
    let before = renewed()?;
    eventually(&format!("heartbeat of {node}"), PATIENCE, || {
        ensure!(renewed()? != before, "renewed at {before}");
        Ok(())
    })?;
    Ok(format!("{node}: {}, Lease renewed", told.join(" ")))
}

fn holder(scene: &Scene, component: &str) -> Result<String> {
    let lease = scene.target().json(&["get", "lease", "-n", "kube-system", component])?;
    Ok(lease["spec"]["holderIdentity"].as_str().context("a Lease that nobody holds")?.to_owned())
}

/// The machine of a holder, which is called `<host name>_<UUID>`.
fn leaders_machine<'a>(scene: &'a Scene, holder: &str) -> Result<&'a Machine> {
    let host = holder.split('_').next().unwrap_or_default();
    let machine = scene.control_plane().iter().find(|machine| machine.name() == host);
    machine.with_context(|| format!("{holder} is on no machine that is there"))
}

fn members(scene: &Scene, wanted: usize) -> Result<Vec<Value>> {
    let machine = scene.any_control_plane()?;
    eventually(&format!("{wanted} members"), PATIENCE, || {
        let list: Value = serde_json::from_str(&etcdctl(machine, &["member", "list", "-w", "json"])?)?;
        let members = list["members"].as_array().context("no members")?.clone();
        ensure!(members.len() == wanted, "{members:?}");
        Ok(members)
    })
}

fn names(members: &[Value]) -> String {
    members.iter().filter_map(|member| member["name"].as_str()).collect::<Vec<_>>().join(" ")
}
