//! Three declared control-plane nodes boot together from what Keyplane wrote.

use anyhow::{Context, Result, ensure};
use keyplane_e2e::boot::{owners_kubectl, start_node};
use keyplane_e2e::installation::{Installation, PATIENCE};
use keyplane_e2e::machine::lab_kubelet_settings;
use keyplane_e2e::{Lab, eventually, image};
use serde_json::{Value, json};

#[test]
#[ignore = "needs root and the lab's parts: make test"]
fn three_control_plane_nodes_form_one_etcd_and_each_serves_with_a_certificate_of_its_own() -> Result<()> {
    let lab = Lab::start()?;
    let images = image::for_any_node(lab.parts())?.into_iter().chain(image::for_control_plane(lab.parts())?);
    let images: Vec<_> = images.collect();
    let names = ["cp1", "cp2", "cp3"];
    let mut machines = names.iter().map(|name| lab.machine(name)).collect::<Result<Vec<_>>>()?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    let nodes: Vec<_> =
        machines.iter().map(|machine| json!({"name": machine.name(), "addresses": [machine.address()]})).collect();
    let spec = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "ClusterSpec", "metadata": {"name": "three"},
        "spec": {
            "kubernetesVersion": "v1.37.2",
            // There is no load balancer here: the first machine stands for it.
            "controlPlaneEndpoint": {"host": machines[0].address()},
            "controlPlane": {"nodes": nodes, "kubelet": lab_kubelet_settings(&machines[0])},
            "addons": {"coreDNS": {"enabled": false}, "kubeProxy": {"enabled": false}},
            "network": {"podCIDRs": ["10.244.0.0/16"]},
        },
    });
    admin.apply(&spec.to_string())?;
    installation.wait_for("three", "Rendered")?;
    // etcd needs two of three: nobody is waited for before all are started.
    for (index, machine) in machines.iter_mut().enumerate() {
        start_node(&installation, "three", machine, &images, &format!("10.244.{index}.0/24"), &|what| {
            eprintln!("{what}");
        })?;
    }
    installation.wait_for("three", "Ready")?;
    let target = owners_kubectl(&lab, &admin, "three")?;
    for name in names {
        eventually(&format!("{name} that is Ready"), PATIENCE, || target.check_condition(&["node", name], "Ready"))?;
        // The API server reaches each kubelet, whose serving certificate Keyplane has approved.
        eventually(&format!("log of etcd on {name}"), PATIENCE, || {
            target.run(&["logs", "-n", "kube-system", &format!("etcd-{name}"), "--tail=1"])
        })?;
    }
    eventually("three of three in the status", PATIENCE, || {
        let status = admin.json(&["get", "clusterspec", "three"])?["status"].clone();
        ensure!(status["nodesReady"] == "3/3", "{}", status["nodesReady"]);
        Ok(())
    })?;
    let pki = "/etc/kubernetes/pki/etcd";
    let members = machines[1].run(&[
        "etcdctl",
        "--endpoints=https://127.0.0.1:2379",
        &format!("--cacert={pki}/ca.crt"),
        &format!("--cert={pki}/healthcheck-client.crt"),
        &format!("--key={pki}/healthcheck-client.key"),
        "member",
        "list",
        "-w",
        "json",
    ])?;
    let members: Value = serde_json::from_str(&members)?;
    let members = members["members"].as_array().context("no members")?;
    ensure!(members.len() == 3 && members.iter().all(|member| member["isLearner"].is_null()), "{members:?}");
    // One node lost: the API stays. It is asked on another machine, as no load balancer moves on from the first.
    let lost = machines.pop().context("no machine")?;
    lost.destroy()?;
    let kubectl = ["kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"];
    eventually("API without the third node", PATIENCE, || {
        machines[1].run(&[&kubectl[..], &["create", "configmap", "after", "--from-literal=a=b"]].concat())
    })?;
    eventually("two of three in the status", PATIENCE, || {
        let status = admin.json(&["get", "clusterspec", "three"])?["status"].clone();
        ensure!(status["nodesReady"] == "2/3", "{}", status["nodesReady"]);
        Ok(())
    })?;
    Ok(())
}
