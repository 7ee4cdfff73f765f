//! The dual-stack example, IPv6 first, boots.

use anyhow::{Context, Result, ensure};
use keyplane_e2e::boot::boot;
use keyplane_e2e::installation::{Installation, PATIENCE};
use keyplane_e2e::machine::{MachineOptions, lab_kubelet_settings};
use keyplane_e2e::{Lab, command, eventually, image};
use serde_json::{Value, json};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/dual-stack.yaml");
const CLUSTER: &str = "dual-stack";
/// The IPv6 address of the example's machine.
const IPV6: &str = "fd00:10::11";

pub(crate) fn the_dual_stack_example_boots_with_ipv6_first_and_its_node_reports_both_families() -> Result<()> {
    let lab = Lab::start()?;
    let images = image::all(lab.parts())?;
    let options = MachineOptions { extra_addresses: vec![format!("{IPV6}/64")], ..MachineOptions::default() };
    let mut machine = lab.machine_with("cp1", &options)?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    let objects = command::run(&mut admin.command(&["create", "--dry-run=client", "-o", "json", "-f", EXAMPLE]))?;
    // kubectl prints one object after another.
    let mut objects = serde_json::Deserializer::from_str(&objects).into_iter::<Value>();
    let mut cluster = objects.next().context("no ClusterSpec in the example")??;
    // What is this lab's: the machine's IPv4 address, and the settings of a machine without systemd.
    let ipv4 = machine.address();
    cluster["spec"]["controlPlaneEndpoint"]["host"] = json!(ipv4);
    cluster["spec"]["controlPlane"]["nodes"][0]["addresses"] = json!([IPV6, ipv4]);
    cluster["spec"]["controlPlane"]["kubelet"] = lab_kubelet_settings(&machine);
    admin.apply(&cluster.to_string())?;
    installation.wait_for(CLUSTER, "Rendered")?;
    let ranges = "fd00:244::/64,10.244.0.0/24";
    let tell = |what: &str| eprintln!("{what}");
    let target = boot(&lab, &mut installation, CLUSTER, &mut machine, &images, ranges, &tell)?;

    let service = target.json(&["get", "service", "kubernetes"])?;
    ensure!(service["spec"]["clusterIPs"] == json!(["fd00:96::1"]), "{}", service["spec"]);
    let endpoints = target.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=kubernetes"])?;
    ensure!(endpoints["items"][0]["endpoints"][0]["addresses"] == json!([IPV6]), "{endpoints}");
    let node = target.json(&["get", "node", "cp1"])?;
    let addresses: Vec<_> = node["status"]["addresses"]
        .as_array()
        .context("a Node without addresses")?
        .iter()
        .filter(|address| address["type"] == "InternalIP")
        .map(|address| address["address"].clone())
        .collect();
    ensure!(addresses == [json!(IPV6), json!(ipv4)], "{addresses:?}");
    ensure!(node["spec"]["podCIDRs"] == json!(["fd00:244::/64", "10.244.0.0/24"]), "{}", node["spec"]);
    let pod = target.json(&["get", "pod", "hello"])?;
    ensure!(pod["status"]["podIPs"].as_array().is_some_and(|addresses| addresses.len() == 2), "{}", pod["status"]);
    // The kubelet serves with a certificate for both, and etcd and the API server on the first family.
    let san = "openssl x509 -noout -ext subjectAltName -in /var/lib/kubelet/pki/kubelet-server-current.pem";
    let names = eventually("serving certificate", PATIENCE, || machine.run(&["sh", "-c", san]))?;
    ensure!(names.contains("FD00:10:0:0:0:0:0:11") && names.contains(&ipv4), "{names}");
    let url = format!("https://[{IPV6}]:6443/readyz");
    let ready = machine.run(&["curl", "-sS", "--cacert", "/etc/kubernetes/pki/ca.crt", &url])?;
    ensure!(ready == "ok", "{ready}");
    Ok(())
}
