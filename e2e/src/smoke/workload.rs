//! What runs in the cluster: a Deployment, its Service, and the ways to look into a pod.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::report::Report;
use super::scene::Scene;
use crate::process::Process;
use crate::wait::{PATIENCE, eventually};
use crate::{command, image, network};

/// The Deployment and its Service.
const NAME: &str = "web";

/// Everything about a workload, on a cluster where it is not yet there.
pub(super) fn check(scene: &Scene, report: &mut Report) {
    report.step("a Deployment is created and its pod runs", || {
        scene.kubectl(&["create", "deployment", NAME, &format!("--image={}", image::WEB), "--replicas=1"])?;
        available(scene, 1)
    });
    report.step("the Deployment scales to two", || {
        scene.kubectl(&["scale", "deployment", NAME, "--replicas=2"])?;
        available(scene, 2)
    });
    report.step("a pod is in its node's range, behind the bridge cni0", || pod_network(scene));
    report.step("a control-plane machine reaches a pod on the worker", || {
        let address = pod_field(scene, "{.items[0].status.podIP}")?;
        answers(scene.any_control_plane()?.run(&[
            "curl",
            "-sS",
            "-I",
            "--max-time",
            "5",
            &format!("http://{address}/"),
        ]))
    });
    report.step("the Deployment is exposed as a NodePort Service", || {
        scene.kubectl(&["expose", "deployment", NAME, "--port=80", "--target-port=80", "--type=NodePort"])?;
        scene.kubectl(&["get", "service", NAME])
    });
    looks(scene, report);
}

/// The same with a machine less: what was there works on, and new pods are made.
pub(super) fn check_again(scene: &Scene, report: &mut Report) {
    report.step("the Deployment scales to three with a control-plane machine less", || {
        scene.kubectl(&["scale", "deployment", NAME, "--replicas=3"])?;
        available(scene, 3)
    });
    looks(scene, report);
}

/// What needs the Deployment and its Service.
fn looks(scene: &Scene, report: &mut Report) {
    report.step("a name of a Service resolves in a pod", || resolves(scene));
    report.step("port-forward reaches the pod", || port_forward(scene));
    report.step("logs of the pod can be read", || {
        let pod = pod_name(scene)?;
        eventually("request in the log", PATIENCE, || {
            let log = scene.kubectl(&["logs", &pod, "--tail=3"])?;
            ensure!(!log.trim().is_empty(), "the log of {pod} is empty");
            Ok(log)
        })
    });
    report.step("a command runs in the pod", || {
        scene.kubectl(&["exec", &pod_name(scene)?, "--", "sh", "-c", "echo \"$(hostname) runs as $(id -u)\""])
    });
    report.step("the NodePort answers from another machine, on the worker and on a control-plane node", || {
        let port = scene.kubectl(&["get", "service", NAME, "-o", "jsonpath={.spec.ports[0].nodePort}"])?;
        let from = scene.any_control_plane()?;
        let mut saw = vec![];
        for node in [scene.worker().address(), from.address()] {
            let client = if node == from.address() { scene.worker() } else { from };
            let url = format!("http://{node}:{}/", port.trim());
            let answer =
                eventually(&url, PATIENCE, || answers(client.run(&["curl", "-sS", "-I", "--max-time", "5", &url])))?;
            saw.push(format!("{} -> {url}: {answer}", client.name()));
        }
        Ok(saw.join("\n"))
    });
}

fn available(scene: &Scene, replicas: u32) -> Result<String> {
    eventually(&format!("{replicas} pods of the Deployment"), PATIENCE, || {
        let status = scene.target().json(&["get", "deployment", NAME])?["status"].clone();
        ensure!(
            status["availableReplicas"] == replicas && status["replicas"] == replicas,
            "{}",
            scene.kubectl(&["get", "pods", "-l", "app=web", "-o", "wide"])?
        );
        scene.kubectl(&["get", "pods", "-l", "app=web", "-o", "wide"])
    })
}

fn pod_field(scene: &Scene, path: &str) -> Result<String> {
    let text = scene.kubectl(&["get", "pods", "-l", "app=web", "-o", &format!("jsonpath={path}")])?;
    ensure!(!text.trim().is_empty(), "no pod of the Deployment");
    Ok(text.trim().to_owned())
}

fn pod_name(scene: &Scene) -> Result<String> {
    pod_field(scene, "{.items[0].metadata.name}")
}

/// The status line of an answer, which has to be 200.
fn answers(result: Result<String>) -> Result<String> {
    let answer = result?;
    let line = answer.lines().next().unwrap_or_default().trim().to_owned();
    ensure!(line.contains(" 200 "), "{answer}");
    Ok(line)
}

fn pod_network(scene: &Scene) -> Result<String> {
    let worker = scene.worker();
    let node = scene.target().json(&["get", "node", worker.name()])?;
    let range = node["spec"]["podCIDR"].as_str().context("the Node has no podCIDR")?.to_owned();
    let bridge = worker.run(&["ip", "-brief", "addr", "show", "cni0"])?;
    let network = range.rsplit_once('.').map_or(range.as_str(), |(network, _)| network);
    ensure!(bridge.contains(network), "{bridge} is outside {range}");
    let cables = worker.run(&["ip", "-brief", "link", "show", "master", "cni0"])?;
    ensure!(cables.contains("veth"), "no pod's cable hangs on cni0: {cables}");
    Ok(format!("{range}\n{bridge}{cables}"))
}

fn resolves(scene: &Scene) -> Result<String> {
    let pod = pod_name(scene)?;
    let wanted = scene.kubectl(&["get", "service", NAME, "-o", "jsonpath={.spec.clusterIP}"])?;
    let name = format!("{NAME}.default.svc.cluster.local");
    eventually(&name, PATIENCE, || {
        let answer = scene.kubectl(&["exec", &pod, "--", "nslookup", &name])?;
        ensure!(answer.contains(wanted.trim()), "{answer}");
        Ok(answer)
    })
}

fn port_forward(scene: &Scene) -> Result<String> {
    let port = network::free_port()?;
    let pod = pod_name(scene)?;
    let log = scene.lab().site().log(&format!("port-forward-{port}"));
    let mut forward = scene.target().command(&["port-forward", &pod, &format!("{port}:80")]);
    let mut forward = Process::start("kubectl port-forward", scene.lab().id(), &mut forward, log)?;
    let url = format!("http://127.0.0.1:{port}/");
    let answer = eventually("answer through port-forward", Duration::from_secs(30), || {
        forward.check_running()?;
        answers(command::run(Command::new("curl").args(["-sS", "-I", "--max-time", "5", &url])))
    });
    forward.kill();
    Ok(format!("{url}: {}", answer?))
}
