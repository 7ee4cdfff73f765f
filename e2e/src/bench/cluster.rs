//! What the API server is filled with: Nodes as kubelets report them, and a request of each kubelet.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::string::PrintableString;
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use serde_json::{Value, json};

use crate::interrupt;
use crate::kubectl::{Kubectl, documents};

/// Where requests are in the API.
pub(super) const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// Where Keyplane has its policy and its lease.
pub(super) const NAMESPACE: &str = "keyplane-system";

/// How many objects are written at once.
const WRITERS: usize = 32;

/// How many images a Node tells of: somewhat less than half of what a kubelet does at most.
const IMAGES: usize = 20;

/// The API server, and the kubelets that there would be.
pub(super) struct Cluster {
    client: Client,
    kubelets: Arc<Vec<Kubelet>>,
    /// The names of the requests that are there.
    requests: Vec<String>,
}

/// A kubelet, as far as the API server gets to see it.
struct Kubelet {
    name: String,
    address: String,
    /// Its request for a serving certificate. It has no random parts but the signature, so it can be made several times.
    csr: String,
}

impl Cluster {
    pub(super) async fn connect(admin: &Kubectl, nodes: u16) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(admin.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // One key for all: no rule compares the keys of two requests, and 5,000 of them take time.
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let kubelets = (0..nodes).map(|number| Kubelet::new(number, &key)).collect::<Result<Vec<_>>>()?;
        Ok(Self { client: Client::try_from(config)?, kubelets: Arc::new(kubelets), requests: vec![] })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) async fn make_nodes(&self) -> Result<()> {
        at_once(self.kubelets.iter().map(|kubelet| async move {
            let node = http::Request::post("/api/v1/nodes").header("Content-Type", "application/json");
            let body = serde_json::to_vec(&kubelet.node())?;
            self.client.request_text(node.body(body)?).await.context("cannot make a Node")?;
            Ok(())
        }))
        .await
    }

    /// Makes one request of each kubelet, as that kubelet.
    pub(super) async fn make_requests(&mut self, prefix: &str) -> Result<()> {
        let names: Vec<String> = (0..self.kubelets.len()).map(|number| format!("{prefix}-{number}")).collect();
        let pairs = self.kubelets.iter().zip(&names);
        at_once(pairs.map(|(kubelet, name)| kubelet.make_request(&self.client, name))).await?;
        self.requests.extend(names);
        Ok(())
    }

    /// Makes one more request of one of the kubelets.
    pub(super) fn make_live_request(&self, number: u16, name: &str) -> impl Future<Output = Result<()>> + use<> {
        let (client, kubelets, name) = (self.client.clone(), Arc::clone(&self.kubelets), name.to_owned());
        async move { kubelets[usize::from(number) % kubelets.len()].make_request(&client, &name).await }
    }

    /// Removes all requests, so that the next approver finds none but its own.
    pub(super) async fn remove_requests(&mut self) -> Result<()> {
        let (client, requests) = (&self.client, std::mem::take(&mut self.requests));
        at_once(requests.iter().map(|name| async move {
            let delete = http::Request::delete(format!("{REQUESTS}/{name}")).body(vec![])?;
            client.request_text(delete).await.context("cannot remove a request")?;
            Ok(())
        }))
        .await
    }
}

impl Kubelet {
    fn new(number: u16, key: &KeyPair) -> Result<Self> {
        let name = format!("worker-{number:05}");
        let [high, low] = number.to_be_bytes();
        let address = format!("10.10.{high}.{low}");
        let mut request = CertificateParams::default();
        request.distinguished_name = DistinguishedName::new();
        let printable = |text: &str| PrintableString::try_from(text).map(DnValue::PrintableString);
        request.distinguished_name.push(DnType::OrganizationName, printable("system:nodes")?);
        request.distinguished_name.push(DnType::CommonName, printable(&format!("system:node:{name}"))?);
        request.subject_alt_names =
            vec![SanType::DnsName(name.as_str().try_into()?), SanType::IpAddress(address.parse()?)];
        let csr = request.serialize_request(key)?.pem()?;
        Ok(Self { name, address, csr })
    }

    async fn make_request(&self, client: &Client, name: &str) -> Result<()> {
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {
                "signerName": "kubernetes.io/kubelet-serving",
                "usages": ["digital signature", "server auth"],
                "request": crate::kubectl::base64(self.csr.as_bytes()),
            },
        });
        let request = http::Request::post(REQUESTS)
            .header("Content-Type", "application/json")
            .header("Impersonate-User", format!("system:node:{}", self.name))
            .header("Impersonate-Group", "system:nodes")
            .header("Impersonate-Group", "system:authenticated");
        let body = serde_json::to_vec(&object)?;
        client.request_text(request.body(body)?).await.context("cannot make a request")?;
        Ok(())
    }

    /// The Node, with about all that a kubelet reports: an approver that watches Nodes has to read it.
    fn node(&self) -> Value {
        let condition = |name: &str, status: &str, reason: &str, message: &str| {
            json!({"type": name, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let images: Vec<Value> = (0..IMAGES)
            .map(|number| {
                let digest = format!("{number:064x}");
                let image = format!("registry.example.com/team-{number}/some-service-of-it");
                json!({"names": [format!("{image}@sha256:{digest}"), format!("{image}:v1.{number}.0")], "sizeBytes": 52_428_800})
            })
            .collect();
        let labels = HashMap::from([
            ("kubernetes.io/arch", "amd64"),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/hostname", self.name.as_str()),
            ("node.kubernetes.io/instance-type", "standard-4"),
            ("topology.kubernetes.io/region", "region-1"),
            ("topology.kubernetes.io/zone", "region-1-a"),
        ]);
        let resources = json!({"cpu": "4", "memory": "16384256Ki", "pods": "110", "ephemeral-storage": "101430960Ki",
            "hugepages-1Gi": "0", "hugepages-2Mi": "0"});
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name,
                "labels": labels,
                "annotations": {
                    "node.alpha.kubernetes.io/ttl": "0",
                    "volumes.kubernetes.io/controller-managed-attach-detach": "true",
                },
            },
            "spec": {"providerID": format!("example:///region-1/{}", self.name)},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": self.address},
                    {"type": "Hostname", "address": self.name},
                ],
                "allocatable": resources,
                "capacity": resources,
                "conditions": [
                    condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                    condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                    condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                    condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
                ],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                "images": images,
                "nodeInfo": {
                    "architecture": "amd64",
                    "bootID": "5a3dbf0e-64a1-4be5-8d3c-3a1c1b6f6c9b",
                    "containerRuntimeVersion": "containerd://2.2.0",
                    "kernelVersion": "6.12.48+deb13-amd64",
                    "kubeProxyVersion": "",
                    "kubeletVersion": "v1.37.2",
                    "machineID": "9c0b7e5f3a6d4d2b8e1f0a9c8b7d6e5f",
                    "operatingSystem": "linux",
                    "osImage": "Debian GNU/Linux 13 (trixie)",
                    "systemUUID": "9c0b7e5f-3a6d-4d2b-8e1f-0a9c8b7d6e5f",
                },
            },
        })
    }
}

/// Keyplane's namespace and policy: every check that there is but the one that asks a DNS server.
pub(super) fn policy(nodes: u16) -> String {
    documents(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": "keyplane.io/v1alpha1",
            "kind": "CertificatePolicy",
            "metadata": {"name": "own-cluster", "namespace": NAMESPACE},
            "spec": {
                "approver": {
                    "nodes": [{"namePattern": "worker-*", "addressCIDRs": ["10.10.0.0/16"], "maxNodes": nodes}],
                    "machines": [{"name": "cp1", "addresses": ["10.11.0.11"]}],
                    "reserved": {
                        "serviceCIDRs": ["10.96.0.0/12"],
                        "podCIDRs": ["10.244.0.0/16"],
                        "endpoints": ["10.11.0.11", "10.11.0.100", "api.example.com"],
                    },
                },
                "kubeletServing": {"addressCIDRs": ["10.10.0.0/15"], "dnsNameRegex": "worker-[0-9]+"},
            },
        }),
    ])
}

/// Runs all of them, some at once, until one fails.
async fn at_once(work: impl Iterator<Item = impl Future<Output = Result<()>>>) -> Result<()> {
    stream::iter(work).buffer_unordered(WRITERS).try_for_each(|()| async { interrupt::check() }).await
}
