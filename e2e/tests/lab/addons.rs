//! The add-ons: as kubeadm prints them, and in a real cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keyplane_e2e::installation::{FIRST_REPLICA, Installation, PATIENCE, bootable_cluster_spec};
use keyplane_e2e::{
    Kubectl, Lab, Machine, Operator, Parts, boot, command, distribute, eventually, image, operator, oracle, preflight,
};
use serde_json::{Value, json};

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

pub(crate) fn add_ons_are_those_that_kubeadm_prints_save_the_documented_differences() -> Result<()> {
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

pub(crate) fn the_images_are_those_that_kubeadm_lists() -> Result<()> {
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

/// Without systemd, and with the kernel of another machine around it, this sysctl is not the lab's to set.
const PROXY_CONFIG: &str = r#"{"conntrack": {"maxPerCore": 0}}"#;

const CLUSTER: &str = "addons";

fn cluster_with(machine: &Machine, addons: &Value) -> Value {
    let mut cluster = bootable_cluster_spec(CLUSTER, &machine.address(), slice::from_ref(machine));
    cluster["spec"]["addons"] = addons.clone();
    cluster
}

fn all_on() -> Result<Value> {
    Ok(json!({
        "kubeProxy": {"mode": "nftables", "config": serde_json::from_str::<Value>(PROXY_CONFIG)?},
        "flannel": {"enabled": true},
    }))
}

pub(crate) fn add_ons_run_are_mended_keep_what_is_the_users_and_are_taken_away() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let lab = Lab::start()?;
    let images = image::for_whole_cluster(lab.parts())?;
    let mut machine = lab.machine("cp1")?;
    let mut installation = Installation::start(&lab)?;
    installation.admin().apply(&cluster_with(&machine, &all_on()?).to_string())?;
    installation.wait_for(CLUSTER, "Rendered")?;
    distribute::apply_files(installation.admin(), "default", CLUSTER, &machine)?;
    machine.start_containerd()?;
    machine.import_images(&images)?;
    // No pod network is put there: the Node becomes Ready by Flannel alone.
    machine.start_kubelet()?;
    let target = boot::owners_kubectl(&lab, installation.admin(), CLUSTER)?;
    installation.wait_for(CLUSTER, "Ready")?;
    tell("the control plane is Ready");
    installation.wait_for(CLUSTER, "AddonsReady")?;
    tell("the add-ons are Ready");
    let mut cluster = Running { installation, machine, target };
    cluster.the_condition_tells_how_many_pods_there_are()?;
    cluster.dns_answers_a_pod_through_its_service()?;
    tell("DNS answers");
    cluster.what_was_changed_is_mended_and_what_is_the_users_stays()?;
    tell("what was changed is mended, what is the user's has stayed");
    cluster.nothing_is_applied_while_nothing_changes(&lab)?;
    tell("nothing was applied");
    cluster.what_the_user_takes_over_is_left_to_him()?;
    tell("an object that the user has taken over is left");
    cluster.dns_that_is_switched_off_is_taken_away()?;
    tell("CoreDNS is gone");
    cluster.dns_of_somebody_else_is_left_alone_and_told()?;
    tell("CoreDNS of somebody else is told");
    Ok(())
}

struct Running {
    installation: Installation,
    machine: Machine,
    target: Kubectl,
}

impl Running {
    fn condition(&self) -> Result<Value> {
        let cluster = self.installation.admin().json(&["get", "clusterspec", CLUSTER])?;
        let conditions = cluster["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "AddonsReady").context("no condition AddonsReady")
    }

    fn apply_addons(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut addons = all_on()?;
        change(&mut addons);
        self.installation.admin().apply(&cluster_with(&self.machine, &addons).to_string()).map(|_| ())
    }

    fn wait_for_reason(&self, reason: &str) -> Result<Value> {
        eventually(&format!("AddonsReady with the reason {reason}"), PATIENCE, || {
            let condition = self.condition()?;
            ensure!(condition["reason"] == reason, "{condition}");
            Ok(condition)
        })
    }

    fn the_condition_tells_how_many_pods_there_are(&self) -> Result<()> {
        let condition = self.condition()?;
        ensure!(condition["message"] == "Pods available: kube-proxy 1/1, Flannel 1/1, CoreDNS 2/2", "{condition}");
        Ok(())
    }

    fn dns_answers_a_pod_through_its_service(&self) -> Result<()> {
        self.target.apply(&ASKER.replace("@IMAGE@", image::TOOLBOX))?;
        eventually("pod that asks", PATIENCE, || self.target.check_condition(&["pod", "asker"], "Ready"))?;
        let asked =
            ["exec", "asker", "--", "timeout", "5", "nslookup", "kubernetes.default.svc.cluster.local", "10.96.0.10"];
        eventually("answer of DNS", PATIENCE, || {
            let answer = self.target.run(&asked)?;
            ensure!(answer.contains("10.96.0.1\n"), "{answer}");
            Ok(())
        })
    }

    fn what_was_changed_is_mended_and_what_is_the_users_stays(&self) -> Result<()> {
        let deployment = ["-n", "kube-system", "deployment/coredns"];
        let daemon_set = ["-n", "kube-system", "daemonset/kube-proxy"];
        let kubectl = |verb: &[&str], rest: &[&str]| self.target.run(&[verb, rest].concat());
        // The user's: fields that kubeadm's manifests don't have, a toleration more, and the number of Pods.
        kubectl(&["set", "resources"], &[&daemon_set[..], &["--requests=cpu=5m"]].concat())?;
        kubectl(&["set", "env"], &[&deployment[..], &["MINE=yes"]].concat())?;
        kubectl(&["scale", "--replicas=1"], &deployment)?;
        let add = r#"[{"op": "add", "path": "/spec/template/spec/tolerations/-", "value": {"key": "theirs", "operator": "Exists"}}]"#;
        kubectl(&["patch", "--type=json", "-p", add], &deployment)?;
        // Keyplane's: an image, and an object that is gone.
        kubectl(&["set", "image"], &[&deployment[..], &["coredns=registry.example/other:1"]].concat())?;
        let mended = || {
            let found = self.target.json(&["get", "-n", "kube-system", "deployment", "coredns"])?;
            let container = &found["spec"]["template"]["spec"]["containers"][0];
            ensure!(container["image"] == "registry.k8s.io/coredns/coredns:v1.14.6", "{container}");
            Ok(found)
        };
        let found = eventually("CoreDNS with its own image", PATIENCE, mended)?;
        let pod = &found["spec"]["template"]["spec"];
        ensure!(found["spec"]["replicas"] == 1, "{}", found["spec"]["replicas"]);
        ensure!(pod["tolerations"].to_string().contains("theirs"), "{}", pod["tolerations"]);
        ensure!(pod["containers"][0]["env"][0]["name"] == "MINE", "{}", pod["containers"][0]);
        let proxy = self.target.json(&["get", "-n", "kube-system", "daemonset", "kube-proxy"])?;
        let requests = &proxy["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"];
        ensure!(requests["cpu"] == "5m", "{requests}");
        self.target.run(&["delete", "-n", "kube-system", "daemonset", "kube-proxy"])?;
        eventually("kube-proxy that is back", PATIENCE, || {
            self.target.run(&["get", "-n", "kube-system", "daemonset", "kube-proxy"])
        })?;
        self.wait_for_reason("Installed").map(|_| ())
    }

    /// A new session looks at every object again, and finds nothing to do.
    fn nothing_is_applied_while_nothing_changes(&mut self, lab: &Lab) -> Result<()> {
        let applied = self.requests("APPLY", "")?;
        let looked = self.requests("GET", "serviceaccounts")?;
        self.installation.operator.stop()?;
        self.installation.operator = Operator::start(lab, &self.installation.user, FIRST_REPLICA)?;
        eventually("look at every add-on", PATIENCE, || {
            let now = self.requests("GET", "serviceaccounts")?;
            ensure!(now >= looked + 3, "{now} requests, {looked} before");
            Ok(())
        })?;
        // Changes of the workloads' status go on arriving; none of them is a reason to write.
        std::thread::sleep(Duration::from_secs(15));
        let now = self.requests("APPLY", "")?;
        ensure!(now == applied, "{now} objects were applied, {applied} before");
        Ok(())
    }

    /// How many requests of this kind the target's API server has answered. Nobody else applies there.
    fn requests(&self, verb: &str, resource: &str) -> Result<u64> {
        let metrics = self.target.run(&["get", "--raw", "/metrics"])?;
        let of_interest = |line: &&str| {
            line.starts_with("apiserver_request_total{")
                && line.contains(&format!("verb=\"{verb}\""))
                && (resource.is_empty() || line.contains(&format!("resource=\"{resource}\"")))
        };
        let counts =
            metrics.lines().filter(of_interest).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(counts.sum())
    }

    fn what_the_user_takes_over_is_left_to_him(&self) -> Result<()> {
        let deployment = ["-n", "kube-system", "deployment", "coredns"];
        self.target.run(&[&["annotate"], &deployment[..], &["keyplane.io/unmanaged=true"]].concat())?;
        self.target.run(&["set", "env", "-n", "kube-system", "deployment/coredns", "MINE=still"])?;
        let limits = ["set", "resources", "-n", "kube-system", "deployment/coredns", "--limits=memory=200Mi"];
        self.target.run(&limits)?;
        std::thread::sleep(Duration::from_secs(5));
        let found = self.target.json(&[&["get"], &deployment[..]].concat())?;
        let limit = &found["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"];
        ensure!(limit == "200Mi", "{limit}");
        self.target.run(&[&["annotate"], &deployment[..], &["keyplane.io/unmanaged-"]].concat())?;
        eventually("CoreDNS with its own limit", PATIENCE, || {
            let found = self.target.json(&[&["get"], &deployment[..]].concat())?;
            let limit = &found["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"];
            ensure!(limit == "170Mi", "{limit}");
            Ok(())
        })
    }

    fn dns_that_is_switched_off_is_taken_away(&self) -> Result<()> {
        self.apply_addons(|addons| addons["coreDNS"] = json!({"enabled": false}))?;
        for object in [
            "-n=kube-system deployment coredns",
            "-n=kube-system service kube-dns",
            "-n=kube-system configmap coredns",
            "-n=kube-system serviceaccount coredns",
            "clusterrole system:coredns",
            "clusterrolebinding system:coredns",
        ] {
            let words: Vec<_> = object.split(' ').collect();
            eventually(&format!("end of {object}"), PATIENCE, || {
                let found = self.target.run(&[&["get", "--ignore-not-found", "-o", "name"], &words[..]].concat())?;
                ensure!(found.trim().is_empty(), "{found}");
                Ok(())
            })?;
        }
        let left = self.target.run(&["get", "-n", "kube-system", "daemonset", "kube-proxy", "-o", "name"])?;
        ensure!(left.contains("kube-proxy"), "kube-proxy is gone too");
        self.wait_for_reason("Installed").map(|_| ())
    }

    fn dns_of_somebody_else_is_left_alone_and_told(&self) -> Result<()> {
        self.target.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: coredns, namespace: kube-system, labels: {app.kubernetes.io/managed-by: Helm}}, data: {Corefile: theirs}}")?;
        self.apply_addons(|_| ())?;
        let condition = self.wait_for_reason("ForeignObject")?;
        let message = condition["message"].as_str().unwrap_or_default();
        ensure!(message.contains("ConfigMap kube-system/coredns"), "{message}");
        let found = self.target.json(&["get", "-n", "kube-system", "configmap", "coredns"])?;
        ensure!(found["data"]["Corefile"] == "theirs", "{found}");
        let deployment =
            self.target.run(&["get", "-n", "kube-system", "deployment", "--ignore-not-found", "coredns"])?;
        ensure!(deployment.trim().is_empty(), "half of it was installed: {deployment}");
        // The cluster is Ready all the same: its own affairs are in order.
        self.installation.admin().check_condition(&["clusterspec", CLUSTER], "Ready")
    }
}

/// A pod to ask from. It tolerates the control plane's taint.
const ASKER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: asker, namespace: default}
spec:
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers: [{name: asker, image: @IMAGE@, imagePullPolicy: Never, command: [sleep, '100000']}]
";
