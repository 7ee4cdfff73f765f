//! `keyplane render` and the real kubeadm, file by file.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyplane_e2e::oracle::{self, Difference};
use keyplane_e2e::{Parts, client_keys, command, operator, preflight};
use serde_json::json;

/// The same cluster for both.
struct Case {
    name: &'static str,
    /// ClusterSpec and, where it is needed, CertificatePolicy.
    keyplane: &'static str,
    /// `ClusterConfiguration` without its first two lines.
    kubeadm: &'static str,
    /// kubeadm's advertise address.
    address: &'static str,
}

const CASES: &[Case] = &[
    Case {
        name: "defaults",
        keyplane: "
kind: ClusterSpec
metadata: {name: demo}
spec:
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: 10.0.0.1}
  controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.1]}]}
",
        kubeadm: "kubernetesVersion: v1.37.2",
        address: "10.0.0.1",
    },
    Case {
        name: "the minor version before",
        keyplane: "
kind: ClusterSpec
metadata: {name: demo}
spec:
  kubernetesVersion: v1.36.3
  controlPlaneEndpoint: {host: 10.0.0.1}
  controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.1]}]}
",
        kubeadm: "kubernetesVersion: v1.36.3",
        address: "10.0.0.1",
    },
    Case {
        name: "RSA-3072, another endpoint and shorter lives",
        keyplane: "
kind: CertificatePolicy
metadata: {name: strong}
spec:
  authority: {keyAlgorithm: RSA-3072, validity: 43800h}
  leaf: {keyAlgorithm: RSA-3072, validity: 2160h}
---
kind: ClusterSpec
metadata: {name: demo}
spec:
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: api.demo.example, port: 8443}
  controlPlane: {nodes: [{name: cp1.demo.example, addresses: [10.0.0.1, 192.168.7.1], nodeIP: 192.168.7.1}]}
  certificatePolicyRef: {name: strong}
",
        kubeadm: "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: api.demo.example:8443
encryptionAlgorithm: RSA-3072
caCertificateValidityPeriod: 43800h
certificateValidityPeriod: 2160h
",
        address: "192.168.7.1",
    },
    Case {
        name: "ECDSA-P256, another DNS domain and other ranges",
        keyplane: "
kind: CertificatePolicy
metadata: {name: ecdsa}
spec:
  authority: {keyAlgorithm: ECDSA-P256}
  leaf: {keyAlgorithm: ECDSA-P256}
---
kind: ClusterSpec
metadata: {name: demo}
spec:
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: 10.0.0.9}
  controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.1]}]}
  network: {serviceCIDRs: [172.20.0.0/16], podCIDRs: [172.21.0.0/16], dnsDomain: corp.example}
  imageRepository: registry.corp.example/kubernetes
  certificatePolicyRef: {name: ecdsa}
",
        kubeadm: "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: 10.0.0.9:6443
encryptionAlgorithm: ECDSA-P256
imageRepository: registry.corp.example/kubernetes
networking: {serviceSubnet: 172.20.0.0/16, podSubnet: 172.21.0.0/16, dnsDomain: corp.example}
",
        address: "10.0.0.1",
    },
    Case {
        name: "ECDSA-P384 and dual stack",
        keyplane: "
kind: CertificatePolicy
metadata: {name: ecdsa}
spec:
  authority: {keyAlgorithm: ECDSA-P384}
  leaf: {keyAlgorithm: ECDSA-P384}
---
kind: ClusterSpec
metadata: {name: demo}
spec:
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: 10.0.0.1}
  controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.1, 'fd00::1']}]}
  network: {serviceCIDRs: [10.96.0.0/16, 'fd00:96::/112'], podCIDRs: [10.244.0.0/16, 'fd00:244::/56']}
  certificatePolicyRef: {name: ecdsa}
",
        kubeadm: "
kubernetesVersion: v1.37.2
encryptionAlgorithm: ECDSA-P384
networking: {serviceSubnet: '10.96.0.0/16,fd00:96::/112', podSubnet: '10.244.0.0/16,fd00:244::/56'}
",
        address: "10.0.0.1",
    },
    Case {
        name: "IPv6 and RSA-4096",
        keyplane: "
kind: CertificatePolicy
metadata: {name: strong}
spec:
  authority: {keyAlgorithm: RSA-4096}
  leaf: {keyAlgorithm: RSA-4096}
---
kind: ClusterSpec
metadata: {name: demo}
spec:
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: 'fd00::1'}
  controlPlane: {nodes: [{name: cp1, addresses: ['fd00::1']}]}
  network: {serviceCIDRs: ['fd00:96::/112'], podCIDRs: ['fd00:244::/56']}
  certificatePolicyRef: {name: strong}
",
        kubeadm: "
kubernetesVersion: v1.37.2
encryptionAlgorithm: RSA-4096
networking: {serviceSubnet: 'fd00:96::/112', podSubnet: 'fd00:244::/56'}
",
        address: "fd00::1",
    },
    Case {
        name: "extra names, arguments and volumes",
        keyplane: "
kind: ClusterSpec
metadata: {name: demo}
spec:
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: api.demo.example}
  controlPlane:
    nodes: [{name: cp1, addresses: [10.0.0.1]}]
    apiServer:
      certSANs: [api.other.example, 203.0.113.7, '*.wild.example', localhost, 10.0.0.1]
      extraArgs:
        - {name: v, value: '4'}
        - {name: authorization-mode, value: 'Node,RBAC,Webhook'}
        - {name: audit-log-path, value: /var/log/audit/audit.log}
        - {name: enable-admission-plugins, value: 'NodeRestriction,AlwaysPullImages'}
        - {name: service-account-issuer, value: 'https://issuer.example'}
        - {name: service-account-issuer, value: 'https://older.example'}
      extraVolumes:
        - {name: audit, hostPath: /var/log/audit, mountPath: /var/log/audit, pathType: DirectoryOrCreate}
        - {name: a-policy, hostPath: /etc/policy.yaml, mountPath: /etc/policy.yaml, readOnly: true, pathType: File}
        - {name: untyped, hostPath: /srv, mountPath: /srv}
    controllerManager:
      extraArgs: [{name: bind-address, value: 0.0.0.0}, {name: node-cidr-mask-size, value: '25'}]
    scheduler:
      extraArgs: [{name: bind-address, value: 10.0.0.1}]
      extraVolumes: [{name: kubeconfig, hostPath: /etc/other.conf, mountPath: /etc/other.conf, readOnly: true, pathType: File}]
  etcd:
    stacked:
      dataDir: /data/etcd
      serverCertSANs: [etcd.demo.example]
      peerCertSANs: [peer.demo.example, 203.0.113.8]
      extraArgs:
        - {name: listen-metrics-urls, value: 'https://10.0.0.1:2383,http://127.0.0.1:2381'}
        - {name: advertise-client-urls, value: 'https://10.0.0.1:2379'}
        - {name: quota-backend-bytes, value: '8589934592'}
",
        kubeadm: "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: api.demo.example:6443
apiServer:
  certSANs: [api.other.example, 203.0.113.7, '*.wild.example', localhost, 10.0.0.1]
  extraArgs:
    - {name: v, value: '4'}
    - {name: authorization-mode, value: 'Node,RBAC,Webhook'}
    - {name: audit-log-path, value: /var/log/audit/audit.log}
    - {name: enable-admission-plugins, value: 'NodeRestriction,AlwaysPullImages'}
    - {name: service-account-issuer, value: 'https://issuer.example'}
    - {name: service-account-issuer, value: 'https://older.example'}
  extraVolumes:
    - {name: audit, hostPath: /var/log/audit, mountPath: /var/log/audit, pathType: DirectoryOrCreate}
    - {name: a-policy, hostPath: /etc/policy.yaml, mountPath: /etc/policy.yaml, readOnly: true, pathType: File}
    - {name: untyped, hostPath: /srv, mountPath: /srv}
controllerManager:
  extraArgs: [{name: bind-address, value: 0.0.0.0}, {name: node-cidr-mask-size, value: '25'}]
scheduler:
  extraArgs: [{name: bind-address, value: 10.0.0.1}]
  extraVolumes: [{name: kubeconfig, hostPath: /etc/other.conf, mountPath: /etc/other.conf, readOnly: true, pathType: File}]
etcd:
  local:
    dataDir: /data/etcd
    serverCertSANs: [etcd.demo.example]
    peerCertSANs: [peer.demo.example, 203.0.113.8]
    extraArgs:
      - {name: listen-metrics-urls, value: 'https://10.0.0.1:2383,http://127.0.0.1:2381'}
      - {name: advertise-client-urls, value: 'https://10.0.0.1:2379'}
      - {name: quota-backend-bytes, value: '8589934592'}
",
        address: "10.0.0.1",
    },
    Case {
        name: "external etcd, and one for Events",
        keyplane: "
kind: ClusterSpec
metadata: {name: demo}
spec:
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: 10.0.0.1}
  controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.1]}]}
  etcd:
    external: {endpoints: ['https://etcd1.example:2379', 'https://[fd00::e2]:2379'], secretRef: {name: corp-etcd}}
    events: {endpoints: ['https://events1.example:2379', 'https://events2.example:2379']}
",
        kubeadm: "
kubernetesVersion: v1.37.2
apiServer:
  extraArgs:
    - {name: etcd-servers-overrides, value: '/events#https://events1.example:2379;https://events2.example:2379'}
etcd:
  external:
    endpoints: ['https://etcd1.example:2379', 'https://[fd00::e2]:2379']
    caFile: /etc/kubernetes/pki/etcd/ca.crt
    certFile: /etc/kubernetes/pki/apiserver-etcd-client.crt
    keyFile: /etc/kubernetes/pki/apiserver-etcd-client.key
",
        address: "10.0.0.1",
    },
];

/// Where the files of an external etcd are made, below a case's folder.
const KEYS: &str = "client-keys";

impl Case {
    fn has_external_etcd(&self) -> bool {
        self.keyplane.contains("external:")
    }

    fn node_name(&self) -> &'static str {
        if self.keyplane.contains("cp1.demo.example") { "cp1.demo.example" } else { "cp1" }
    }

    /// Renders, and gives back the node's folder.
    fn render(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let file = folder.join("cluster.yaml");
        let mut documents = self.keyplane.replace("kind:", "apiVersion: keyplane.io/v1alpha1\nkind:");
        if self.has_external_etcd() {
            let keys = folder.join(KEYS);
            client_keys::make(&keys)?;
            let mut data = BTreeMap::new();
            for name in ["ca.crt", "tls.crt", "tls.key"] {
                data.insert(name, BASE64_STANDARD.encode(fs::read(keys.join(name))?));
            }
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "corp-etcd"}, "data": data});
            documents = format!("{documents}---\n{secret}\n");
        }
        fs::write(&file, documents)?;
        let output = folder.join("rendered");
        let mut keyplane = Command::new(operator::binary()?);
        keyplane.args(["render", "-f"]).arg(&file).arg("-o").arg(&output);
        command::run(&mut keyplane)?;
        Ok(output.join(self.node_name()))
    }

    fn kubeadm_configuration(&self) -> String {
        format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {{advertiseAddress: '{}'}}\n\
             nodeRegistration: {{name: {}, criSocket: 'unix:///var/run/containerd/containerd.sock'}}\n---\n\
             apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{}\n",
            self.address,
            self.node_name(),
            self.kubeadm
        )
    }

    /// Holds kubeadm's files against those of the node, which was rendered in this folder.
    fn differences(&self, parts: &Parts, folder: &Path, node: &Path) -> Result<Vec<Difference>> {
        let theirs = folder.join("kubeadm");
        if self.has_external_etcd() {
            // kubeadm expects the same three files at the places that its configuration names.
            fs::create_dir_all(theirs.join("etc/pki/etcd"))?;
            for (name, place, mode) in [
                ("ca.crt", "etcd/ca.crt", 0o644),
                ("tls.crt", "apiserver-etcd-client.crt", 0o644),
                ("tls.key", "apiserver-etcd-client.key", 0o600),
            ] {
                let place = theirs.join("etc/pki").join(place);
                fs::copy(folder.join(KEYS).join(name), &place)?;
                fs::set_permissions(place, fs::Permissions::from_mode(mode))?;
            }
        }
        oracle::kubeadm_init(parts, &self.kubeadm_configuration(), &theirs)?;
        oracle::differences(&theirs, node)
    }
}

pub(crate) fn render_and_kubeadm_agree_file_by_file_save_the_documented_differences() -> Result<()> {
    preflight::check()?;
    let parts = Parts::build()?;
    let exceptions = oracle::exceptions()?;
    let mut used = std::collections::BTreeSet::new();
    let mut unexpected = vec![];
    for (number, case) in CASES.iter().enumerate() {
        let folder = tempfile::tempdir()?;
        let node = case.render(folder.path())?;
        for difference in case.differences(&parts, folder.path(), &node).with_context(|| case.name)? {
            match exceptions.iter().find(|exception| exception.allows(&difference)) {
                Some(exception) => _ = used.insert(exception),
                None => unexpected.push(format!("{}: {difference:?}", case.name)),
            }
        }
        kubeadm_accepts_the_rendered_cluster_configuration(&parts, folder.path()).with_context(|| case.name)?;
        if number == 0 {
            kubeadm_lists_the_expiry_of_every_rendered_certificate(&parts, &node)?;
        }
    }
    ensure!(unexpected.is_empty(), "not in docs/kubeadm-differences.md:\n{}", unexpected.join("\n"));
    // A Node that is named like its machine has no flag of kubeadm's; here kubeadm is told the name, so the row stays.
    let unused: Vec<_> =
        exceptions.iter().filter(|row| !used.contains(row) && !format!("{row:?}").contains("hostname")).collect();
    ensure!(unused.is_empty(), "no longer differences: {unused:?}");
    Ok(())
}

fn kubeadm_lists_the_expiry_of_every_rendered_certificate(parts: &Parts, node: &Path) -> Result<()> {
    let table = oracle::check_expiration(parts, node)?;
    let rows = [
        "admin.conf",
        "apiserver",
        "apiserver-etcd-client",
        "apiserver-kubelet-client",
        "controller-manager.conf",
        "etcd-healthcheck-client",
        "etcd-peer",
        "etcd-server",
        "front-proxy-client",
        "scheduler.conf",
        "super-admin.conf",
        "ca",
        "etcd-ca",
        "front-proxy-ca",
    ];
    for row in rows {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(row));
        let line = line.with_context(|| format!("no row {row} in:\n{table}"))?;
        // The last column says whether a certificate is externally managed; none is, as the authorities' keys are there.
        ensure!(line.trim_end().ends_with("no"), "{line}\nin:\n{table}");
        ensure!(!line.contains("MISSING") && !line.contains("invalid"), "{line}");
    }
    Ok(())
}

fn kubeadm_accepts_the_rendered_cluster_configuration(parts: &Parts, folder: &Path) -> Result<()> {
    let object = folder.join("rendered/objects/target/demo/configmap-kube-system-kubeadm-config.yaml");
    let object: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(object)?)?;
    let configuration = object["data"]["ClusterConfiguration"].as_str().context("no ClusterConfiguration")?;
    let file = folder.join("kubeadm-config.yaml");
    fs::write(&file, configuration)?;
    let mut kubeadm = parts.command("kubeadm");
    kubeadm.args(["config", "validate", "--config"]).arg(&file);
    command::run(&mut kubeadm).with_context(|| configuration.to_owned())?;
    Ok(())
}
