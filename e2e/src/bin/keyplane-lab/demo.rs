//! The demo: from nothing to a cluster that Keyplane holds the keys of, step by step.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyplane_e2e::machine::MachineOptions;
use keyplane_e2e::subnet::Subnet;
use keyplane_e2e::sweep::{self, Which};
use keyplane_e2e::{
    Kubectl, Lab, Machine, Management, Operator, Parts, carry, command, eventually, image, interrupt, operator,
    preflight,
};

use crate::screen::{Progress, say};
use crate::tour;

/// The lab's id. There is one demo at a time on a host.
const LAB: &str = "demo";

/// The user's side of the demo, as the documentation shows it.
pub(crate) const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/cluster.yaml");

/// The `ClusterSpec` in the example, its machine, and that machine's number in the demo's network.
const CLUSTER: &str = "demo";
const MACHINE: &str = "cp1";
const MACHINE_NUMBER: u8 = 11;

/// The pods' addresses on that machine, within the example's pod network.
const POD_CIDR: &str = "10.244.0.0/24";

/// A pod that says something, so that there is a log to read. It tolerates the control plane's taint.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: hello, namespace: default}
spec:
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers:
  - name: hello
    image: @IMAGE@
    imagePullPolicy: Never
    command: [sh, -c, 'while :; do echo "$(date -u +%T) hello from a cluster whose keys Keyplane holds"; sleep 2; done']
"#;

/// A step that only waits for a computer takes seconds; a busy one gets this long.
const PATIENCE: Duration = Duration::from_mins(3);

/// Everything that the guided look needs.
pub(crate) struct Demo {
    pub(crate) lab: Lab,
    pub(crate) management: Management,
    pub(crate) operator: Operator,
    pub(crate) machine: Machine,
    pub(crate) target: Kubectl,
}

/// Brings it up, shows it, and stays until Ctrl-C, or returns at once and leaves it running.
pub(crate) fn run(file: &Path, detach: bool) -> Result<()> {
    interrupt::listen()?;
    let mut demo = bring_up(file, &Progress::begin()).inspect_err(|_| {
        if interrupt::requested() {
            say("interrupted: everything has been removed");
        } else if std::env::var_os("KEYPLANE_LAB_KEEP_LOGS").is_none() {
            say("the demo failed; what it had started has been removed (KEYPLANE_LAB_KEEP_LOGS=1 keeps the logs)");
        }
    })?;
    tour::show(&demo);
    tour::how_to_go_on(&demo, detach);
    if detach {
        return demo.lab.leave_running();
    }
    let mut told = false;
    while !interrupt::requested() {
        // Someone may want to see what happens without it, so the rest stays.
        if !told && !demo.operator.is_running() {
            say(&format!("Keyplane has ended; its log is {}. The clusters stay up.", demo.operator.log().display()));
            told = true;
        }
        sleep(Duration::from_millis(300));
    }
    demo.lab.end()?;
    say("the demo has been removed");
    Ok(())
}

/// Ends the demo, whether somebody still watches it or not.
pub(crate) fn down() -> Result<()> {
    let records: Vec<_> = sweep::records().into_iter().filter(|record| record.id == LAB).collect();
    sweep::dismiss_owners(&records);
    let _lock = sweep::lock()?;
    sweep::sweep(Which::Dead)?;
    sweep::take_down(LAB)?;
    say(if records.is_empty() { "no demo was up" } else { "the demo has been removed" });
    Ok(())
}

fn bring_up(file: &Path, progress: &Progress) -> Result<Demo> {
    progress.step("looking at this host, building what is missing (minutes the first time)");
    preflight::check()?;
    let keyplane = operator::binary()?;
    let file = file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?;
    let parts = Parts::build()?;
    let images = image::all(&parts)?;
    interrupt::check()?;
    let lab = Lab::start_as(LAB, Subnet::DEMO, parts)?;

    progress.step("starting a management cluster: etcd, kube-apiserver, kube-controller-manager");
    let management = Management::start(&lab)?;
    let user = management.add_user("keyplane")?;

    progress.step("installing Keyplane's kinds and starting Keyplane");
    let mut operator = start_keyplane(&lab, &management, &user, &keyplane)?;

    progress.step(&format!("kubectl apply -f {}", file.display()));
    management.kubectl(&["apply", "-f", &file.to_string_lossy()])?;
    wait_for_condition(&management, &mut operator, "Rendered")?;

    progress.step("starting the machine cp1 and carrying its files to it");
    let options = MachineOptions { host_number: Some(MACHINE_NUMBER), ..MachineOptions::default() };
    let mut machine = lab.machine_with(MACHINE, &options)?;
    let paths = carry::carry(management.admin(), "default", CLUSTER, &machine)?;
    progress.step(&format!("{} files are on cp1; starting containerd", paths.len()));
    machine.put_pod_network(POD_CIDR)?;
    machine.start_containerd()?;
    machine.import_images(&images)?;
    interrupt::check()?;

    progress.step("starting the kubelet: the control plane boots from the static pods");
    machine.start_kubelet()?;
    let target = target(&lab, &management)?;
    eventually("API server on cp1", PATIENCE, || {
        machine.check_kubelet()?;
        target.run(&["get", "--raw", "/readyz"])
    })?;
    progress.step("its API server is ready; waiting for the node");
    eventually("node that is Ready", PATIENCE, || {
        machine.check_kubelet()?;
        target.check_condition(&["node", MACHINE], "Ready")
    })?;

    progress.step("the node is Ready; starting a pod");
    eventually("default service account", PATIENCE, || target.run(&["get", "serviceaccount", "default"]))?;
    target.apply(&POD.replace("@IMAGE@", image::TOOLBOX))?;
    eventually("pod that is Ready", PATIENCE, || target.check_condition(&["pod", "hello"], "Ready"))?;
    progress.step("the pod runs; its log can be read once Keyplane has approved the kubelet's serving certificate");
    eventually("log of the pod", PATIENCE, || target.run(&["logs", "hello"]))?;
    eventually("command in the pod", PATIENCE, || target.run(&["exec", "hello", "--", "sh", "-c", "echo hi"]))?;

    progress.step("waiting until the static pods are Ready and Keyplane calls the cluster Ready");
    let ready =
        ["wait", "pod", "-n", "kube-system", "-l", "tier=control-plane", "--for=condition=Ready", "--timeout=0"];
    eventually("control plane whose pods are all Ready", PATIENCE, || target.run(&ready))?;
    wait_for_condition(&management, &mut operator, "Ready")?;
    progress.step("all is up");
    Ok(Demo { lab, management, operator, machine, target })
}

fn start_keyplane(lab: &Lab, management: &Management, user: &Kubectl, keyplane: &Path) -> Result<Operator> {
    let kinds = command::run(Command::new(keyplane).arg("crds"))?;
    management.kubectl_apply(&kinds)?;
    management.kubectl(&["wait", "crd", "--all", "--for=condition=Established", "--timeout=60s"])?;
    Operator::start(lab, user, "keyplane-0")
}

fn wait_for_condition(management: &Management, operator: &mut Operator, kind: &str) -> Result<()> {
    let result = eventually(&format!("clusterspec {CLUSTER} with the condition {kind}"), PATIENCE, || {
        operator.check_running()?;
        management.admin().check_condition(&["clusterspec", CLUSTER], kind)
    });
    result.with_context(|| format!("the operator's log is {}", operator.log().display()))
}

/// kubectl for the cluster that Keyplane made, with the kubeconfig that Keyplane wrote.
fn target(lab: &Lab, management: &Management) -> Result<Kubectl> {
    let secret = management.admin().json(&["get", "secret", &format!("{CLUSTER}-kubeconfig")])?;
    let value = secret["data"]["value"].as_str().context("the Secret demo-kubeconfig has no key `value`")?;
    let path = lab.folder().join("target.kubeconfig");
    fs::write(&path, BASE64_STANDARD.decode(value).context("the kubeconfig is not base64")?)?;
    Ok(Kubectl::new(lab.parts(), &path))
}
