//! Keyplane as the approver of a cluster that it did not make: kubeadm's own.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use keyplane_e2e::installation::{PATIENCE, install_kinds_in};
use keyplane_e2e::kubectl::documents;
use keyplane_e2e::machine::lab_kubelet_settings;
use keyplane_e2e::{Kubectl, Lab, Machine, NameServer, Operator, eventually, image};
use serde_json::{Value, json};

use super::csr::{explain_with, items, pod, request, submit, verdict};
use super::whole_lab::{init, prepare};

const NAMESPACE: &str = "keyplane-system";
const POLICY: &str = "own-cluster";

/// All that the approver may do, for a ServiceAccount: judge the requests of one signer by the Nodes and its policy, tell
/// of it in Events, and hold its Lease.
fn rights() -> Vec<Value> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let signer = json!({"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "resourceNames": ["kubernetes.io/kubelet-serving"], "verbs": ["approve"]});
    let everywhere = [
        rule("certificates.k8s.io", "certificatesigningrequests", &["get", "list", "watch"]),
        rule("certificates.k8s.io", "certificatesigningrequests/approval", &["patch"]),
        signer,
        rule("", "nodes", &["list", "watch"]),
    ];
    let at_home = [
        rule("keyplane.io", "certificatepolicies", &["list", "watch"]),
        rule("keyplane.io", "certificatepolicies/status", &["patch"]),
        rule("coordination.k8s.io", "leases", &["get", "create", "update"]),
    ];
    let events = [rule("events.k8s.io", "events", &["create", "patch"])];
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "keyplane", "namespace": NAMESPACE}}),
    ];
    let subjects = json!([{"kind": "ServiceAccount", "name": "keyplane", "namespace": NAMESPACE}]);
    for (kind, namespace, rules) in [
        ("ClusterRole", None, &everywhere[..]),
        ("Role", Some(NAMESPACE), &at_home[..]),
        // A request is in no namespace, and the Events about it are in this one.
        ("Role", Some("default"), &events[..]),
    ] {
        let mut metadata = json!({"name": "keyplane"});
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        let api = format!("{GROUP}/v1");
        objects.push(json!({"apiVersion": api, "kind": kind, "metadata": metadata, "rules": rules}));
        let reference = json!({"apiGroup": GROUP, "kind": kind, "name": "keyplane"});
        let binding = format!("{kind}Binding");
        objects.push(json!({"apiVersion": api, "kind": binding, "metadata": metadata, "roleRef": reference, "subjects": subjects}));
    }
    objects
}

fn policy(machine: &Machine) -> Value {
    json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "CertificatePolicy",
        "metadata": {"name": POLICY, "namespace": NAMESPACE},
        "spec": {
            "approver": {
                "machines": [{"name": "cp1", "addresses": [machine.address()]}],
                "reserved": {
                    "serviceCIDRs": ["10.96.0.0/12"], "podCIDRs": ["10.244.0.0/16"],
                    "endpoints": [machine.address(), "api.lab.example"],
                },
            },
            "kubeletServing": {"forwardResolution": true},
        },
    })
}

/// kubectl as the approver's ServiceAccount.
fn as_approver(lab: &Lab, admin: &Kubectl) -> Result<Kubectl> {
    let token = admin.run(&["create", "token", "keyplane", "-n", NAMESPACE])?;
    let mut config: Value = serde_json::from_str(&admin.run(&["config", "view", "--raw", "-o", "json"])?)?;
    config["users"][0]["user"] = json!({"token": token.trim()});
    let path = lab.folder().join("approver.kubeconfig");
    fs::write(&path, config.to_string())?;
    Ok(Kubectl::new(lab.parts(), &path))
}

pub(crate) fn an_approver_with_few_rights_serves_a_cluster_that_kubeadm_made() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let lab = Lab::start()?;
    let images = image::for_whole_cluster(lab.parts())?;
    let mut machine = lab.machine("cp1")?;
    machine.put_pod_network("10.244.0.0/24")?;
    prepare(&mut machine, &images)?;
    let mut settings = lab_kubelet_settings(&machine);
    settings["serverTLSBootstrap"] = json!(true);
    let endpoint = format!("{}:6443", machine.address());
    init(lab.parts(), &mut machine, &endpoint, "nftables", settings)?;
    tell("kubeadm init is done");
    let kubeconfig = lab.folder().join("admin.kubeconfig");
    fs::write(&kubeconfig, machine.read_file("/etc/kubernetes/admin.conf")?)?;
    let admin = Kubectl::new(lab.parts(), &kubeconfig);
    install_kinds_in(&admin)?;
    eventually("default service account", PATIENCE, || admin.run(&["get", "serviceaccount", "default"]))?;
    admin.apply(&documents(&[rights(), vec![policy(&machine), pod("cp1")]].concat()))?;
    eventually("pod on cp1", PATIENCE, || admin.check_condition(&["pod", "cp1"], "Ready"))?;
    let refused = admin.run(&["logs", "cp1"]).err().context("a kubelet without a certificate shows a log")?;
    ensure!(format!("{refused:#}").contains("tls: internal error"), "{refused:#}");
    tell("the pod runs, and its log can't be read");

    let names = NameServer::start(lab.site())?;
    let user = as_approver(&lab, &admin)?;
    let mut approver = Operator::start_approver(&lab, &user, "approver-0", NAMESPACE, &names)?;
    let pending = admin.json(&["get", "csr", "--field-selector=spec.signerName=kubernetes.io/kubelet-serving"])?;
    let pending = items(&pending).next().context("the kubelet has asked for nothing")?["metadata"]["name"].clone();
    let pending = pending.as_str().context("a request without a name")?;
    // The policy wants the node's name to resolve, and nobody knows it.
    for (address, reason) in [(None, "NameNotResolved"), (Some([192, 0, 2, 7]), "NameResolvesElsewhere")] {
        if let Some(address) = address {
            names.set("cp1", Ipv4Addr::from(address));
        }
        eventually(&format!("wait for {reason}"), PATIENCE, || {
            approver.check_running()?;
            let metrics = approver.get("/metrics")?;
            let counted = |line: &str| line.contains(reason) && line.contains(r#"verdict="wait""#);
            ensure!(metrics.lines().any(counted), "{metrics}");
            Ok(())
        })?;
        let explained = explain_with(names.command_with(&keyplane_e2e::operator::binary()?), &admin, &[pending])?;
        ensure!(explained.status == Some(3) && explained.answer["reason"] == reason, "{explained:?}");
        ensure!(
            explained.rule("forward-resolution") == "Wait" && explained.rule("node-addresses") == "Approve",
            "{explained:?}"
        );
    }
    names.set("cp1", machine.address().parse()?);
    let approved = verdict(&admin, pending)?;
    ensure!(approved["type"] == "Approved" && approved["reason"] == "AllRulesPassed", "{approved}");
    eventually("log of the pod", PATIENCE, || {
        let log = admin.run(&["logs", "cp1"])?;
        ensure!(log.contains("hello from cp1"), "{log}");
        Ok(())
    })?;
    tell("once its name resolves to its address, the kubelet serves, and the log can be read");

    let forged = request(&machine, "forged", "cp1", Some(&format!("DNS:cp1,IP:{},IP:192.0.2.9", machine.address())))?;
    submit(&machine, &["--kubeconfig=/etc/kubernetes/kubelet.conf"], &[forged])?;
    let denied = verdict(&admin, "forged")?;
    ensure!(denied["type"] == "Denied" && denied["reason"] == "AddressNotDeclared", "{denied}");
    let message = denied["message"].as_str().unwrap_or_default();
    ensure!(message.contains("192.0.2.9") && message.contains("rule declared-addresses"), "{denied}");
    eventually("Event that kubectl describes the request with", PATIENCE, || {
        let described = admin.run(&["describe", "csr", "forged"])?;
        ensure!(described.contains("AddressNotDeclared") && described.contains(message), "{described}");
        Ok(())
    })?;
    let explained = explain_with(names.command_with(&keyplane_e2e::operator::binary()?), &admin, &["forged"])?;
    ensure!(explained.status == Some(2) && explained.rule("declared-addresses") == "Deny", "{explained:?}");
    tell("what it may not have is denied, with the reason");

    the_rights_are_all_that_it_has_and_needs(&user, &approver)?;
    tell("its rights are few, and enough");
    approver.stop()
}

fn the_rights_are_all_that_it_has_and_needs(user: &Kubectl, approver: &Operator) -> Result<()> {
    let log = fs::read_to_string(approver.log())?;
    ensure!(!log.to_lowercase().contains("forbidden"), "{log}");
    for right in [
        &["list", "secrets", "-A"][..],
        &["create", "certificatesigningrequests"],
        &["delete", "certificatesigningrequests"],
        &["patch", "nodes"],
        &["list", "certificatepolicies.keyplane.io", "-n", "default"],
        &["list", "clusterspecs.keyplane.io", "-n", NAMESPACE],
    ] {
        let told = user.run(&[&["auth", "can-i"][..], right].concat());
        ensure!(told.is_err(), "it may {right:?}");
    }
    Ok(())
}
