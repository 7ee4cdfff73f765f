//! The add-ons: as kubeadm prints them, and in a real cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use keyplane_e2e::{Parts, command, operator, oracle, preflight};
use serde_json::Value;

/// The same cluster for both.
struct Case {
    name: &'static str,
    /// The ClusterSpec's spec.
    keyplane: &'static str,
    /// `ClusterConfiguration` without its first two lines.
    kubeadm: &'static str,
    /// A KubeProxyConfiguration without its first two lines.
    proxy: &'static str,
    /// kubeadm's advertise address.
    address: &'static str,
}

const CASES: &[Case] = &[
    Case {
        name: "defaults",
        keyplane: "
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: 10.0.0.1}
  controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.1]}]}
",
        kubeadm: "kubernetesVersion: v1.37.2",
        proxy: "",
        address: "10.0.0.1",
    },
    Case {
        name: "the minor version before",
        keyplane: "
  kubernetesVersion: v1.36.3
  controlPlaneEndpoint: {host: 10.0.0.1}
  controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.1]}]}
",
        kubeadm: "kubernetesVersion: v1.36.3",
        proxy: "",
        address: "10.0.0.1",
    },
    Case {
        name: "dual stack, another repository, endpoint and DNS domain",
        keyplane: "
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: api.demo.example, port: 8443}
  controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.1, 'fd00::1']}]}
  network: {serviceCIDRs: [10.96.0.0/16, 'fd00:96::/112'], podCIDRs: [10.244.0.0/16, 'fd00:244::/56'], dnsDomain: corp.example}
  imageRepository: registry.corp.example/kubernetes
",
        kubeadm: "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: api.demo.example:8443
imageRepository: registry.corp.example/kubernetes
networking: {serviceSubnet: '10.96.0.0/16,fd00:96::/112', podSubnet: '10.244.0.0/16,fd00:244::/56', dnsDomain: corp.example}
",
        proxy: "",
        address: "10.0.0.1",
    },
    Case {
        name: "IPv6 first",
        keyplane: "
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: 'fd00::1'}
  controlPlane: {nodes: [{name: cp1, addresses: ['fd00::1', 10.0.0.1]}]}
  network: {serviceCIDRs: ['fd00:96::/112', 10.96.0.0/16], podCIDRs: ['fd00:244::/56', 10.244.0.0/16]}
",
        kubeadm: "
kubernetesVersion: v1.37.2
networking: {serviceSubnet: 'fd00:96::/112,10.96.0.0/16', podSubnet: 'fd00:244::/56,10.244.0.0/16'}
",
        proxy: "",
        address: "fd00::1",
    },
    Case {
        name: "settings of kube-proxy",
        keyplane: "
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: 10.0.0.1}
  controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.1]}]}
  addons:
    kubeProxy:
      mode: nftables
      config: {conntrack: {maxPerCore: 0}, nodePortAddresses: [primary], nftables: {syncPeriod: 30s}, featureGates: {ContextualLogging: true}}
",
        kubeadm: "kubernetesVersion: v1.37.2",
        proxy: "
mode: nftables
conntrack: {maxPerCore: 0}
nodePortAddresses: [primary]
nftables: {syncPeriod: 30s}
featureGates: {ContextualLogging: true}
",
        address: "10.0.0.1",
    },
];

impl Case {
    fn cluster_spec(&self, folder: &Path) -> Result<PathBuf> {
        let file = folder.join("cluster.yaml");
        let head = "apiVersion: keyplane.io/v1alpha1\nkind: ClusterSpec\nmetadata: {name: demo}\nspec:";
        fs::write(&file, format!("{head}{}", self.keyplane))?;
        Ok(file)
    }

    fn kubeadm_configuration(&self, folder: &Path) -> Result<PathBuf> {
        let file = folder.join("kubeadm.yaml");
        let proxy = if self.proxy.is_empty() {
            String::new()
        } else {
            format!("---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration{}", self.proxy)
        };
        let text = format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {{advertiseAddress: '{}'}}\n\
             nodeRegistration: {{name: cp1, criSocket: 'unix:///var/run/containerd/containerd.sock'}}\n---\n\
             apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{}\n{proxy}",
            self.address, self.kubeadm
        );
        fs::write(&file, text)?;
        Ok(file)
    }
}

#[test]
#[ignore = "needs root and the lab's parts: make test"]
fn add_ons_are_those_that_kubeadm_prints_save_the_documented_differences() -> Result<()> {
    preflight::check()?;
    let parts = Parts::build()?;
    let exceptions = oracle::object_exceptions()?;
    let (mut used, mut unexpected) = (BTreeSet::new(), vec![]);
    for case in CASES {
        let folder = tempfile::tempdir()?;
        let output = folder.path().join("rendered");
        let mut keyplane = Command::new(operator::binary()?);
        keyplane.args(["render", "-f"]).arg(case.cluster_spec(folder.path())?).arg("-o").arg(&output);
        command::run(&mut keyplane)?;
        let configuration = case.kubeadm_configuration(folder.path())?;
        for addon in ["coredns", "kube-proxy"] {
            let theirs = oracle::kubeadm_addon(&parts, &configuration, addon).with_context(|| case.name)?;
            let ours = fs::read_to_string(output.join(format!("objects/target/demo/addon-{addon}.yaml")))?;
            for difference in oracle::object_differences(&theirs, &oracle::objects(&ours)?)? {
                match exceptions.iter().find(|exception| exception.allows(&difference)) {
                    Some(exception) => _ = used.insert(exception),
                    None => unexpected.push(format!("{}: {difference:?}", case.name)),
                }
            }
        }
    }
    ensure!(unexpected.is_empty(), "not in docs/kubeadm-differences.md:\n{}", unexpected.join("\n"));
    let unused: Vec<_> = exceptions.iter().filter(|row| !used.contains(row)).collect();
    ensure!(unused.is_empty(), "no longer differences: {unused:?}");
    Ok(())
}

#[test]
#[ignore = "needs the lab's parts: make test"]
fn the_images_are_those_that_kubeadm_lists() -> Result<()> {
    preflight::check()?;
    let parts = Parts::build()?;
    for case in CASES {
        let folder = tempfile::tempdir()?;
        let mut keyplane = Command::new(operator::binary()?);
        keyplane.args(["images", "-f"]).arg(case.cluster_spec(folder.path())?);
        let ours = command::run(&mut keyplane)?;
        let mut kubeadm = parts.command("kubeadm");
        kubeadm.args(["config", "images", "list", "--config"]).arg(case.kubeadm_configuration(folder.path())?);
        let theirs = command::run(&mut kubeadm)?;
        ensure!(ours.trim() == theirs.trim(), "{}: kubeadm\n{theirs}\nKeyplane\n{ours}", case.name);
        keyplane.args(["-o", "json"]);
        let listed: Value = serde_json::from_str(&command::run(&mut keyplane)?)?;
        let lines: Vec<_> = listed["images"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        ensure!(lines == ours.lines().collect::<Vec<_>>(), "{listed}");
    }
    Ok(())
}
