//! The hard way: a server that is no Node and two workers, all of them units, run by their own command lines.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use keyplane_e2e::boot::owners_kubectl;
use keyplane_e2e::image::{self, Image};
use keyplane_e2e::installation::{Installation, PATIENCE};
use keyplane_e2e::kubectl::documents;
use keyplane_e2e::machine::lab_kubelet_settings;
use keyplane_e2e::{Kubectl, Lab, Machine, distribute, eventually, node_files};
use serde_json::{Value, json};

const CLUSTER: &str = "hard-way";

fn objects(server: &Machine, workers: &[Machine]) -> String {
    let cluster = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "ClusterSpec", "metadata": {"name": CLUSTER},
        "spec": {
            "kubernetesVersion": "v1.37.2",
            "controlPlaneEndpoint": {"host": server.address()},
            "controlPlane": {
                "layout": "Systemd",
                "registerNodes": false,
                "nodes": [{"name": "server", "addresses": [server.address()]}],
            },
            // A network namespace can't change the size of the host's table.
            "addons": {"coreDNS": {"enabled": false}, "kubeProxy": {"config": {"conntrack": {"maxPerCore": 0}}}},
            "network": {"serviceCIDRs": ["10.32.0.0/24"], "podCIDRs": ["10.200.0.0/16"]},
        },
    });
    let machines: Vec<_> =
        workers.iter().map(|machine| json!({"name": machine.name(), "addresses": [machine.address()]})).collect();
    let pool = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "NodePool", "metadata": {"name": "workers"},
        "spec": {
            "clusterRef": {"name": CLUSTER},
            "machines": machines,
            "kubelet": lab_kubelet_settings(server),
            "labels": {"example.com/disk": "ssd"},
        },
    });
    documents(&[cluster, pool])
}

/// What a pod does with a question: it says who it is and, as the kernel writes it, who asked.
const ANSWER: &str = r#"
while read -r line; do [ "$line" = "$(printf '\r')" ] && break; done
echo asked >&2
printf 'HTTP/1.0 200 OK\r\n\r\nhello from %s\n' "$HOSTNAME"
cat /proc/net/tcp /proc/net/tcp6
"#;

/// A pod on one node, which answers at port 8080.
fn pod(name: &str, node: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": image::TOOLBOX, "imagePullPolicy": "Never",
                "command": ["nc", "-ll", "-p", "8080", "-e", "sh", "-c", ANSWER],
            }],
        },
    })
    .to_string()
}

/// An IPv4 address as the kernel's tables have it.
fn in_kernels_form(address: &str) -> Result<String> {
    let octets = address.parse::<Ipv4Addr>()?.octets();
    Ok(octets.iter().rev().map(|octet| format!("{octet:02X}")).collect::<Vec<_>>().concat())
}

struct HardWay<'a> {
    lab: &'a Lab,
    installation: Installation,
    server: Machine,
    workers: Vec<Machine>,
    target: Kubectl,
}

pub(crate) fn servers_without_nodes_and_their_workers_run_as_the_units_that_keyplane_wrote() -> Result<()> {
    let lab = Lab::start()?;
    let images = image::for_any_node(lab.parts())?;
    let mut server = lab.machine("server")?;
    let workers = ["node-0", "node-1"].iter().map(|name| lab.machine(name)).collect::<Result<Vec<_>>>()?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    admin.apply(&objects(&server, &workers))?;
    installation.wait_for(CLUSTER, "Rendered")?;

    eprintln!("the server");
    distribute::apply_files(&admin, "default", CLUSTER, &server)?;
    let programs = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    server.install(lab.parts(), &programs, "/usr/local/bin")?;
    for unit in programs {
        start(&mut server, unit, &[])?;
    }
    let target = owners_kubectl(&lab, &admin, CLUSTER)?;
    installation.wait_for(CLUSTER, "Ready")?;
    let mut hard_way = HardWay { lab: &lab, installation, server, workers, target };
    hard_way.the_health_of_each_component_can_be_asked()?;
    hard_way.workers_join_by_their_own_certificates(&images)?;
    hard_way.pods_reach_each_other_by_routes()?;
    hard_way.the_api_server_reaches_kubelets_by_the_hard_ways_role()?;
    hard_way.a_service_leads_to_its_pod()?;
    hard_way.kubelets_keep_their_own_certificates()?;
    hard_way.a_server_that_is_gone_is_counted_as_gone()
}

fn start(machine: &mut Machine, unit: &str, further: &[String]) -> Result<()> {
    let text = machine.read_file(&format!("/etc/systemd/system/{unit}.service"))?;
    machine.start_unit_with(unit, &String::from_utf8(text)?, further)
}

/// Carries those files that aren't secret and whose path is one of these.
fn put(management: &Kubectl, machine: &Machine, is_one: impl Fn(&str) -> bool) -> Result<()> {
    let config = management.json(&["get", "configmap", &format!("{CLUSTER}-{}-config", machine.name())])?;
    for file in node_files::files(&config)?.iter().filter(|file| is_one(&file.path)) {
        machine.put_file(&file.path, &file.content, file.mode)?;
    }
    Ok(())
}

impl HardWay<'_> {
    fn admin(&self) -> &Kubectl {
        self.installation.admin()
    }

    fn the_health_of_each_component_can_be_asked(&self) -> Result<()> {
        let status = self.admin().json(&["get", "clusterspec", CLUSTER])?["status"].clone();
        ensure!((&status["readyNodes"], &status["desiredNodes"]) == (&json!(1), &json!(1)), "{status}");
        let nodes = self.target.json(&["get", "nodes"])?;
        ensure!(nodes["items"] == json!([]), "the server is a Node");
        for path in ["/livez", "/readyz"] {
            ensure!(self.target.run(&["get", "--raw", path])? == "ok");
        }
        for url in [
            "https://127.0.0.1:6443/readyz",
            "http://127.0.0.1:2381/readyz",
            "https://127.0.0.1:10257/healthz",
            "https://127.0.0.1:10259/readyz",
        ] {
            eventually(url, PATIENCE, || self.server.run(&["curl", "--silent", "--fail", "--insecure", url]))?;
        }
        Ok(())
    }

    fn workers_join_by_their_own_certificates(&mut self, images: &[Image]) -> Result<()> {
        let admin = self.admin().clone();
        for worker in &mut self.workers {
            eprintln!("{}", worker.name());
            let paths: BTreeSet<_> = distribute::apply_files(&admin, "default", CLUSTER, worker)?.into_iter().collect();
            ensure!(
                !paths.iter().any(|path| path.starts_with("/etc/kubernetes") || path.contains("/var/lib/kubernetes"))
            );
            put(&admin, worker, |path| path.starts_with("/etc/containerd/"))?;
            worker.put_containerd_settings()?;
            let parts = self.lab.parts();
            worker.install(parts, &["kubelet", "kube-proxy"], "/usr/local/bin")?;
            worker.install(parts, &["containerd", "containerd-shim-runc-v2"], "/bin")?;
            start(worker, "containerd", &[])?;
            eventually("containerd", PATIENCE, || worker.run(&["ctr", "version"]))?;
            worker.load_images(images)?;
            let flags = worker.lab_kubelet_flags();
            start(worker, "kubelet", &flags)?;
            start(worker, "kube-proxy", &[])?;
        }
        eprintln!("the network, which is known once both Nodes have ranges");
        for worker in &self.workers {
            let name = format!("{CLUSTER}-{}-config", worker.name());
            eventually("bridge and routes", PATIENCE, || {
                let config = admin.json(&["get", "configmap", &name])?;
                let routes = config["data"]["pod-routes.service"].as_str().context("no routes yet")?;
                ensure!(config["data"]["10-bridge.conflist"].is_string() && routes.contains("ip -4 route replace"));
                Ok(())
            })?;
        }
        // With the first worker's range the server has a route, with the second's both.
        eventually("both routes for the server", PATIENCE, || {
            let config = admin.json(&["get", "configmap", &format!("{CLUSTER}-server-config")])?;
            let routes = config["data"]["pod-routes.service"].as_str().unwrap_or_default();
            ensure!(routes.matches("ip -4 route replace").count() == 2, "{routes}");
            Ok(())
        })?;
        for machine in self.workers.iter_mut().chain([&mut self.server]) {
            put(&admin, machine, |path| path.starts_with("/etc/cni/") || path.ends_with("pod-routes.service"))?;
            start(machine, "pod-routes", &[])?;
        }
        for worker in &mut self.workers {
            let name = worker.name().to_owned();
            eventually(&format!("{name} that is Ready"), PATIENCE, || {
                worker.check_unit("kubelet")?;
                self.target.check_condition(&["node", &name], "Ready")
            })?;
            let node = self.target.json(&["get", "node", &name])?;
            ensure!(node["metadata"]["labels"]["example.com/disk"] == "ssd", "{}", node["metadata"]["labels"]);
        }
        // Nobody has needed a token, and there is none.
        let tokens = self.target.run(&["get", "secrets", "-n", "kube-system", "-o", "name"])?;
        ensure!(!tokens.contains("bootstrap-token"), "{tokens}");
        let pool = admin.json(&["get", "nodepool", "workers"])?;
        ensure!(pool["status"]["machines"][0]["state"] == "Ready", "{}", pool["status"]);
        Ok(())
    }

    fn pod_address(&self, name: &str) -> Result<String> {
        let pod = self.target.json(&["get", "pod", name])?;
        Ok(pod["status"]["podIP"].as_str().context("a pod without address")?.to_owned())
    }

    fn pods_reach_each_other_by_routes(&self) -> Result<()> {
        eprintln!("pods");
        eventually("default service account", PATIENCE, || self.target.run(&["get", "serviceaccount", "default"]))?;
        for (name, node) in [("a", "node-0"), ("b", "node-1")] {
            self.target.apply(&pod(name, node))?;
        }
        for name in ["a", "b"] {
            eventually(&format!("pod {name} that is Ready"), PATIENCE, || {
                self.target.check_condition(&["pod", name], "Ready")
            })?;
        }
        let url = format!("http://{}:8080", self.pod_address("b")?);
        let answer =
            eventually("command in a pod", PATIENCE, || self.target.run(&["exec", "a", "--", "wget", "-qO-", &url]))?;
        ensure!(answer.contains("hello from b"), "{answer}");
        // Nothing between the machines hides a pod behind its node.
        let caller = in_kernels_form(&self.pod_address("a")?)?;
        ensure!(answer.contains(&format!("{caller}:")), "{caller} is not among the callers: {answer}");
        // The server is no Node, and reaches pods all the same.
        let answer =
            eventually("answer for the server", PATIENCE, || self.server.run(&["curl", "--silent", "--fail", &url]))?;
        ensure!(answer.contains("hello from b"), "{answer}");
        Ok(())
    }

    fn the_api_server_reaches_kubelets_by_the_hard_ways_role(&self) -> Result<()> {
        eventually("log of a pod", PATIENCE, || {
            let log = self.target.run(&["logs", "b"])?;
            ensure!(log.contains("asked"), "{log}");
            Ok(())
        })?;
        let binding = self.target.json(&["get", "clusterrolebinding", "system:kube-apiserver"])?;
        ensure!(binding["roleRef"]["name"] == "system:kube-apiserver-to-kubelet");
        ensure!(self.target.run(&["get", "clusterrolebinding", "kubeadm:apiserver-kubelet-client"]).is_err());
        Ok(())
    }

    fn a_service_leads_to_its_pod(&self) -> Result<()> {
        eprintln!("a Service");
        self.target.run(&["expose", "pod", "b", "--port=80", "--target-port=8080", "--type=NodePort"])?;
        let service: Value = self.target.json(&["get", "service", "b"])?;
        let url = format!("http://{}", service["spec"]["clusterIP"].as_str().context("no address")?);
        eventually("answer of the Service", PATIENCE, || {
            let answer = self.target.run(&["exec", "a", "--", "wget", "-qO-", &url])?;
            ensure!(answer.contains("hello from b"), "{answer}");
            Ok(())
        })?;
        let port = service["spec"]["ports"][0]["nodePort"].as_i64().context("no port")?;
        let url = format!("http://{}:{port}", self.workers[0].address());
        eventually("answer at the other node's port", PATIENCE, || {
            let answer = self.server.run(&["curl", "--silent", "--fail", "--max-time", "2", &url])?;
            ensure!(answer.contains("hello from b"), "{answer}");
            Ok(())
        })
    }

    fn kubelets_keep_their_own_certificates(&mut self) -> Result<()> {
        eprintln!("the kubelet's own certificate");
        let admin = self.admin().clone();
        let secret = admin.json(&["get", "secret", &format!("{CLUSTER}-node-0-pki")])?;
        let files = node_files::files(&secret)?;
        let kubeconfig =
            files.iter().find(|file| file.path == "/var/lib/kubelet/kubeconfig").context("no kubeconfig")?;
        ensure!(String::from_utf8_lossy(&kubeconfig.content).contains("kubelet-client-current.pem"));
        let worker = &mut self.workers[0];
        worker.put_file(&kubeconfig.path, &kubeconfig.content, kubeconfig.mode)?;
        worker.stop_unit("kubelet")?;
        eventually("Node that is not Ready", PATIENCE, || {
            ensure!(self.target.check_condition(&["node", "node-0"], "Ready").is_err());
            Ok(())
        })?;
        let flags = worker.lab_kubelet_flags();
        start(worker, "kubelet", &flags)?;
        eventually("node-0 that is Ready again", PATIENCE, || self.target.check_condition(&["node", "node-0"], "Ready"))
    }

    fn a_server_that_is_gone_is_counted_as_gone(self) -> Result<()> {
        eprintln!("the server is lost");
        let admin = self.admin().clone();
        self.server.destroy()?;
        eventually("readyNodes 0 in the status", PATIENCE, || {
            let cluster = admin.json(&["get", "clusterspec", CLUSTER])?;
            let status = &cluster["status"];
            ensure!((&status["readyNodes"], &status["desiredNodes"]) == (&json!(0), &json!(1)), "{status}");
            Ok(())
        })
    }
}
