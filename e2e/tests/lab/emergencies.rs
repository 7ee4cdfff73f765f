//! What docs/emergencies.md says, done: the management cluster is lost and restored from a backup, and then every key of
//! the cluster is revoked.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keyplane_e2e::boot::owners_kubectl;
use keyplane_e2e::command::run_with_input;
use keyplane_e2e::installation::PATIENCE;
use keyplane_e2e::load::credentials::{accepted_by_api_server, of_kubeconfig, token_accepted_by_api_server};
use keyplane_e2e::rotation_lab::{CLUSTER, Doors, Scene, Size, lock};
use keyplane_e2e::{Kubectl, eventually};
use serde_json::{Value, json};

/// A revocation starts every component of every machine anew, and Nodes come back after that.
const LONG: Duration = Duration::from_mins(10);

pub(crate) fn a_cluster_outlives_its_management_cluster_and_the_theft_of_all_its_keys() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let mut scene = Scene::set_up(&Size::small(), &tell)?;
    the_management_cluster_is_lost_and_restored(&mut scene, &tell)?;
    every_key_is_revoked(&scene, &tell)
}

fn the_management_cluster_is_lost_and_restored(scene: &mut Scene, tell: &dyn Fn(&str)) -> Result<()> {
    let backup = scene.admin().run(&["get", "secrets,configmaps", "-l", BACKED_UP, "-o", "yaml"])?;
    let specs = ["clusterspec", "nodepool"].map(|kind| scene.admin().json(&["get", kind]));
    let [clusters, pools] = specs;
    let (mut cluster, pool) = (written(&clusters?["items"][0]), written(&pools?["items"][0]));
    let before = contents(scene.admin())?;
    ensure!(before.len() > 8, "{before:?}");
    let containers = eventually("containers that all run", PATIENCE, || containers(scene.target()))?;

    scene.lose_the_management_cluster()?;
    let admin = scene.admin().clone();
    tell("the management cluster is gone; another one is there, with an operator and nothing else");
    cluster["spec"]["nodeAgent"]["managementServer"] = json!(scene.installation.management.server_for_machines());
    admin.apply(&cluster.to_string())?;
    admin.apply(&pool.to_string())?;
    wait_for_reason(&admin, "ClusterAlreadyRunning")?;
    ensure!(contents(&admin)?.is_empty(), "something was made beside the cluster that runs");
    tell("Keyplane makes no keys for a cluster that runs already");
    admin.run(&["annotate", "clusterspec", CLUSTER, "keyplane.io/restore=true"])?;
    wait_for_reason(&admin, "WaitingForRestore")?;
    run_with_input(&mut admin.command(&["create", "-f", "-"]), backup.as_bytes())?;
    admin.run(&["annotate", "clusterspec", CLUSTER, "keyplane.io/restore-"])?;
    scene.installation.wait_for(CLUSTER, "Rendered")?;
    tell("the backup is there");
    scene.start_agents()?;
    scene.wait_until_applied()?;
    scene.installation.wait_for(CLUSTER, "Ready")?;
    scene.installation.wait_for(CLUSTER, "NodesInSync")?;
    tell("the agents have found the other management cluster");
    let after = contents(&admin)?;
    ensure!(after == before, "{before:?} became {after:?}");
    let now = self::containers(scene.target())?;
    ensure!(now == containers, "{containers:?} became {now:?}");
    Ok(())
}

/// What docs/emergencies.md backs up.
const BACKED_UP: &str = "keyplane.io/cluster=rotated,!keyplane.io/agent-bootstrap";

/// The object as its owner keeps it.
fn written(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"] = json!({"name": object["metadata"]["name"], "namespace": "default"});
    object.as_object_mut().map(|fields| fields.remove("status"));
    object
}

/// What every Secret and ConfigMap of the cluster holds, as kubectl prints it. Nobody needs to see which keys these are.
fn contents(admin: &Kubectl) -> Result<BTreeMap<String, u64>> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let list = admin.json(&["get", "secrets,configmaps", "-l", BACKED_UP])?;
    let hash = |object: &Value| {
        let mut hasher = DefaultHasher::new();
        object["data"].to_string().hash(&mut hasher);
        hasher.finish()
    };
    let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]).replace('"', "");
    Ok(list["items"].as_array().context("no list")?.iter().map(|object| (name(object), hash(object))).collect())
}

/// Each container of each pod: an error while one has not begun.
fn containers(target: &Kubectl) -> Result<Vec<String>> {
    let path = "jsonpath={range .items[*].status.containerStatuses[*]}{.name} {.containerID}{\"\\n\"}{end}";
    let mut containers: Vec<_> = target.run(&["get", "pods", "-A", "-o", path])?.lines().map(str::to_owned).collect();
    containers.sort();
    let waits = containers.iter().any(|line| line.ends_with(' '));
    ensure!(!waits && !containers.is_empty(), "{containers:?}");
    Ok(containers)
}

fn wait_for_reason(admin: &Kubectl, reason: &str) -> Result<()> {
    eventually(reason, PATIENCE, || {
        let complaint = admin.complaint(&["clusterspec", CLUSTER], "Rendered")?;
        ensure!(complaint.contains(reason), "{complaint}");
        Ok(())
    })
}

fn every_key_is_revoked(scene: &Scene, tell: &dyn Fn(&str)) -> Result<()> {
    let doors = Doors::before(scene)?;
    let admin = scene.admin();
    let first = scene.control_plane().first().map(|machine| lock(machine).address()).context("no control plane")?;
    let stolen = of_kubeconfig(&fs::read_to_string(scene.target().kubeconfig())?)?;
    let pair = stolen.pair.clone().context("the owner's kubeconfig has no certificate")?;
    let token = scene.target().run(&["create", "token", "default"])?;
    let copy = scene.lab().folder().join("stolen.kubeconfig");
    fs::copy(scene.target().kubeconfig(), &copy)?;
    let thief = Kubectl::new(scene.lab().parts(), &copy);
    let annotate = |line: &str| admin.run(&["annotate", "clusterspec", CLUSTER, "--overwrite", line]).map(drop);
    annotate("keyplane.io/revoke-certificate-authorities=leak")?;
    annotate("keyplane.io/revoke-service-account-key=leak")?;
    let (word, steps) = eventually("what would be interrupted", PATIENCE, || {
        let status = scene.status()?;
        let word = status["revocation"]["confirm"].as_str().context("no word to confirm it")?.to_owned();
        ensure!(word.split(',').count() == 4, "{word}");
        let steps = status["revocation"]["steps"].as_array().cloned().unwrap_or_default();
        ensure!(steps.len() > 3, "{status}");
        Ok((word, steps))
    })?;
    let complaint = admin.complaint(&["clusterspec", CLUSTER], "RotationsCompleted")?;
    ensure!(complaint.contains("RevocationNotConfirmed"), "{complaint}");
    ensure!(accepted_by_api_server(&first, &stolen.authorities, &pair)?, "it was not confirmed");
    for step in &steps {
        tell(step.as_str().unwrap_or_default());
    }

    let kubeconfig = || admin.secret_text(&format!("{CLUSTER}-kubeconfig"), "value");
    let former = kubeconfig()?;
    annotate(&format!("keyplane.io/confirm-revocation={word}"))?;
    let confirmed = Instant::now();
    let since =
        |what: &str| tell(&format!("{:.0} s after the confirmation: {what}", confirmed.elapsed().as_secs_f32()));
    eventually("another kubeconfig of the owner", PATIENCE, || {
        ensure!(kubeconfig()? != former, "it is the former one");
        Ok(())
    })?;
    since("everything is written anew");
    eventually("API that answers to the new authority", LONG, || {
        owners_kubectl(scene.lab(), admin, CLUSTER)?.run(&["get", "--raw", "/readyz"])
    })?;
    since("the API answers, and believes the owner's new kubeconfig");
    let target = owners_kubectl(scene.lab(), admin, CLUSTER)?;
    eventually("Nodes whose kubelets are known again", LONG, || {
        for machine in scene.machines() {
            let name = lock(machine).name().to_owned();
            target.check_condition(&["node", &name], "Ready")?;
        }
        let log = target.run(&["logs", "--namespace", "kube-system", "ds/kube-proxy", "--tail=1"])?;
        ensure!(!log.is_empty(), "kube-proxy says nothing");
        Ok(())
    })?;
    since("every Node is Ready, and its kubelet serves logs");
    eventually("revocation that is completed", LONG, || {
        let status = scene.status()?;
        let all = status["rotations"].as_array().context("no rotations")?;
        let at = |entry: &Value| format!("{} {} {}", entry["name"], entry["phase"], entry["waitingFor"]);
        ensure!(
            all.len() == 4 && all.iter().all(|entry| entry["phase"] == "Completed"),
            "{:?}",
            all.iter().map(at).collect::<Vec<_>>()
        );
        Ok(())
    })?;
    since("Keyplane has seen that all servers and kubelets refuse the old ones");
    let status = scene.status()?;
    let answers = doors.check(scene, &status["rotations"].as_array().into_iter().flatten().collect::<Vec<_>>())?;
    since(&format!("{answers} answers of servers are as they should be"));
    ensure!(thief.run(&["get", "nodes"]).is_err(), "the stolen kubeconfig is still good");
    let owners = of_kubeconfig(&fs::read_to_string(target.kubeconfig())?)?;
    let new_token = target.run(&["create", "token", "default"])?;
    for (token, expected) in [(token, false), (new_token, true)] {
        let accepted = token_accepted_by_api_server(&first, &owners.authorities, token.trim())?;
        ensure!(accepted == expected, "a token of the {} key", if expected { "new" } else { "revoked" });
    }
    scene.wait_until_applied()
}
