//! Boots a control plane on a machine from what Keyplane wrote, and from nothing else.

use std::fs;

use anyhow::{Result, ensure};

use crate::image::{self, Image};
use crate::installation::{Installation, PATIENCE};
use crate::kubectl::Kubectl;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::wait::eventually;
use crate::{distribute, interrupt};

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

/// Puts the files on the machine and starts containerd and the kubelet.
///
/// # Errors
/// When Keyplane wrote no files for it, or something does not start.
pub fn start_node(
    installation: &Installation,
    cluster: &str,
    machine: &mut Machine,
    images: &[Image],
    pod_cidr: &str,
    tell: &dyn Fn(&str),
) -> Result<()> {
    let name = machine.name().to_owned();
    let files = distribute::apply_files(installation.admin(), "default", cluster, machine)?;
    tell(&format!("{} files are on {name}; starting containerd", files.len()));
    machine.put_pod_network(pod_cidr)?;
    machine.start_containerd()?;
    machine.import_images(images)?;
    interrupt::check()?;
    tell(&format!("starting the kubelet of {name}: the control plane boots from the static pods"));
    machine.start_kubelet()
}

/// Starts the only node of a cluster; waits until the Node is Ready and a pod's log
/// can be read. Gives back kubectl with the kubeconfig that Keyplane wrote for the cluster's owner.
///
/// # Errors
/// When something does not come up.
pub fn boot(
    lab: &Lab,
    installation: &mut Installation,
    cluster: &str,
    machine: &mut Machine,
    images: &[Image],
    pod_cidr: &str,
    tell: &dyn Fn(&str),
) -> Result<Kubectl> {
    let name = machine.name().to_owned();
    start_node(installation, cluster, machine, images, pod_cidr, tell)?;
    let target = owners_kubectl(lab, installation.admin(), cluster)?;
    eventually(&format!("API server on {name}"), PATIENCE, || {
        machine.check_kubelet()?;
        target.run(&["get", "--raw", "/readyz"])
    })?;
    tell("its API server is ready; waiting for the node");
    eventually("node that is Ready", PATIENCE, || {
        machine.check_kubelet()?;
        target.check_condition(&["node", &name], "Ready")
    })?;

    tell("the node is Ready; starting a pod");
    eventually("default service account", PATIENCE, || target.run(&["get", "serviceaccount", "default"]))?;
    target.apply(&POD.replace("@IMAGE@", image::TOOLBOX))?;
    eventually("pod that is Ready", PATIENCE, || target.check_condition(&["pod", "hello"], "Ready"))?;
    tell("the pod runs; its log can be read once Keyplane has approved the kubelet's serving certificate");
    eventually("log of the pod", PATIENCE, || {
        let log = target.run(&["logs", "hello"])?;
        ensure!(log.contains("hello from a cluster"), "{log}");
        Ok(())
    })?;
    eventually("command in the pod", PATIENCE, || target.run(&["exec", "hello", "--", "sh", "-c", "echo hi"]))?;

    tell("waiting until the static pods are Ready and Keyplane calls the cluster Ready");
    let ready =
        ["wait", "pod", "-n", "kube-system", "-l", "tier=control-plane", "--for=condition=Ready", "--timeout=0"];
    eventually("control plane whose pods are all Ready", PATIENCE, || target.run(&ready))?;
    installation.wait_for(cluster, "Ready")?;
    tell("all is up");
    Ok(target)
}

/// kubectl for a cluster that Keyplane made, with the kubeconfig in the Secret `<cluster>-kubeconfig`.
///
/// # Errors
/// When there is none.
pub fn owners_kubectl(lab: &Lab, management: &Kubectl, cluster: &str) -> Result<Kubectl> {
    let path = lab.folder().join(format!("{cluster}.kubeconfig"));
    fs::write(&path, management.secret_text(&format!("{cluster}-kubeconfig"), "value")?)?;
    Ok(Kubectl::new(lab.parts(), &path))
}
