//! Everything is rotated under a load, on the smallest cluster that shows it: no request fails, and no workload's pod is
//! restarted. `make lab-rotation` does the same on three control-plane machines and two workers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keyplane_e2e::boot::owners_kubectl;
use keyplane_e2e::eventually;
use keyplane_e2e::installation::PATIENCE;
use keyplane_e2e::load::Load;
use keyplane_e2e::load::credentials::{
    Authority, accepted_as_front_proxy, accepted_by_api_server, accepted_by_etcd, accepted_by_etcd_as_peer,
    accepted_by_kubelet, of_kubeconfig, token_accepted_by_api_server,
};
use keyplane_e2e::rotation_lab::faults::has_a_wrong_clock;
use keyplane_e2e::rotation_lab::{CLUSTER, Doors, Scene, Size, lock, rotate_leaves};
use serde_json::Value;

/// The API server looks at its serving pair every minute.
const SETTLE: Duration = Duration::from_secs(75);

pub(crate) fn nobody_notices_a_rotation() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let scene = Scene::set_up(&Size::small(), &tell)?;
    let load = Load::start(&scene, "before")?;
    tell("the load runs");
    let outcome = rotate_leaves(&scene, &load, SETTLE, &tell);
    let tally = load.stop();
    eprintln!("{}\n{}\n{}", tally.table(), tally.told_failures(), tally.summary());
    outcome?;
    ensure!(tally.total().failed == 0, "{}", tally.summary());
    for client in Load::CLIENTS {
        ensure!(tally.total_of(client).requests > 0, "{client} has asked nothing");
    }
    every_door_knows_its_authority_and_no_stranger(&scene)?;
    tell("each door knows its authority");
    the_load_notices_an_authority_that_is_gone(&scene)
}

/// A load that can't fail would say nothing: the API server is given another authority in one step, so that nobody's
/// certificate is known any more.
fn the_load_notices_an_authority_that_is_gone(scene: &Scene) -> Result<()> {
    let load = Load::start(scene, "another authority")?;
    let first = scene.control_plane().first().context("no control plane")?;
    let other = Authority::stranger("kubernetes")?;
    lock(first).put_file("/etc/kubernetes/pki/ca.crt", other.certificate.as_bytes(), 0o644)?;
    let noticed = eventually("failures", PATIENCE, || {
        ensure!(load.tally().total_of("API requests").failed > 0 && load.tally().total_of("API writes").failed > 0);
        Ok(())
    });
    eprintln!("{}", load.tally().told_failures());
    noticed
}

/// Each door of each machine, with a certificate of the authority that it trusts and with one of an authority that only
/// has the same name.
fn every_door_knows_its_authority_and_no_stranger(scene: &Scene) -> Result<()> {
    let authority = |suffix: &str| Authority::read(scene.admin(), &format!("{CLUSTER}-{suffix}"), "tls.crt", "tls.key");
    let (ca, etcd, proxy) = (authority("ca")?, authority("etcd")?, authority("proxy")?);
    let known = |own: &Authority, name: &str| -> Result<_> {
        let stranger = Authority::stranger("kubernetes")?;
        Ok([(true, own.client(name, &[])?), (false, stranger.client(name, &[])?)])
    };
    let trust = ca.certificate.as_bytes();
    for (expected, pair) in known(&ca, "somebody")? {
        for machine in scene.control_plane() {
            let address = lock(machine).address();
            ensure!(accepted_by_api_server(&address, trust, &pair)? == expected, "API server: {expected}");
        }
        for machine in scene.machines() {
            let address = lock(machine).address();
            ensure!(accepted_by_kubelet(&address, trust, &pair)? == expected, "kubelet: {expected}");
        }
    }
    let first = scene.control_plane().first().context("no control plane")?;
    let address = lock(first).address();
    for (expected, pair) in known(&proxy, "front-proxy-client")? {
        ensure!(accepted_as_front_proxy(&address, trust, &pair)? == expected, "front proxy: {expected}");
    }
    for (expected, pair) in known(&etcd, "somebody")? {
        let trust = etcd.certificate.as_bytes();
        ensure!(accepted_by_etcd(&address, trust, &pair)? == expected, "etcd: {expected}");
        ensure!(accepted_by_etcd_as_peer(&address, trust, &pair)? == expected, "etcd's other members: {expected}");
    }
    Ok(())
}

/// Three authorities and the token key, on one control-plane machine and one worker, with everything that can be killed
/// killed at each stage, and a machine's clock wrong in one. With one API server somebody is always refused while it is
/// started anew: who is let in by which authority is what this looks at.
pub(crate) fn each_stage_lets_in_whom_it_says() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let mut scene = Scene::set_up(&Size::small(), &tell)?;
    let doors = Doors::before(&scene)?;
    let old_token = token(&scene)?;
    ensure!(is_let_in(&scene, &old_token)?, "the first token");
    let admin = scene.admin().clone();
    let annotate = |line: &str| admin.run(&["annotate", "clusterspec", CLUSTER, "--overwrite", line]).map(drop);
    annotate("keyplane.io/rotate-certificate-authorities=once")?;
    annotate("keyplane.io/rotate-service-account-key=once")?;

    let mut seen = String::new();
    let mut look = |scene: &mut Scene| -> Result<String> {
        let stages = stages(scene)?;
        if stages != seen {
            let answers = doors.check(scene, &rotations(&scene.status()?))?;
            tell(&format!("{stages}: {answers} answers as they should be"));
            seen.clone_from(&stages);
            scene.crash_the_operator()?;
            scene.crash_the_agents()?;
        }
        Ok(stages)
    };
    let mut clock_was_wrong = false;
    eventually("authorities that are Prepared", LONG, || {
        let stages = look(&mut scene)?;
        if stages.contains("Clients") && !clock_was_wrong {
            clock_was_wrong = true;
            tell(&has_a_wrong_clock(&mut scene, "worker1")?.join("; "));
        }
        ensure!(!stages.contains("Preparing") && !stages.is_empty(), "{stages}");
        Ok(())
    })?;
    let new_token = token(&scene)?;
    ensure!(is_let_in(&scene, &old_token)? && is_let_in(&scene, &new_token)?, "both keys' tokens are good");
    tell("everybody lets in both, and knows a server by either");

    annotate("keyplane.io/complete-rotation=once")?;
    eventually("rotations that are Completed", LONG, || {
        let stages = look(&mut scene)?;
        ensure!(stages.split(", ").all(|one| one.ends_with("Completed")), "{stages}");
        Ok(())
    })?;
    ensure!(!is_let_in(&scene, &old_token)? && is_let_in(&scene, &new_token)?, "the new key's token alone is good");
    tell("the former authorities and the former key are good nowhere");
    // What was not rotated by hand works too: the owner's kubeconfig, logs by way of kubelets, pods.
    owners_kubectl(scene.lab(), scene.admin(), CLUSTER)?.run(&["get", "nodes"])?;
    let secret = scene.admin().json(&["get", "secret", &format!("{CLUSTER}-ca")])?;
    let keys: Vec<_> = secret["data"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    ensure!(keys == ["tls.crt", "tls.key"], "{keys:?}");
    Ok(())
}

/// With a wait for client-go's polls, restarts of every component, and all that was killed.
const LONG: Duration = Duration::from_mins(25);

/// The rotations in a status.
fn rotations(status: &Value) -> Vec<&Value> {
    status["rotations"].as_array().into_iter().flatten().collect()
}

/// The rotations with their phases, in the status's order.
fn stages(scene: &Scene) -> Result<String> {
    let status = scene.status()?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |rotation: &Value| {
        let words = [word(&rotation["name"]), word(&rotation["stage"]), word(&rotation["phase"])];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    };
    Ok(rotations(&status).into_iter().map(one).collect::<Vec<_>>().join(", "))
}

/// A token of a service account, signed by the key that signs now.
fn token(scene: &Scene) -> Result<String> {
    eventually("token", PATIENCE, || {
        let token = scene.target().run(&["create", "token", "default", "--namespace", "default"])?;
        Ok(token.trim().to_owned())
    })
}

/// Whether an API server takes the token for somebody's.
fn is_let_in(scene: &Scene, token: &str) -> Result<bool> {
    let first = scene.control_plane().first().context("no control plane")?;
    let address = lock(first).address();
    let owners = of_kubeconfig(&scene.admin().secret_text(&format!("{CLUSTER}-kubeconfig"), "value")?)?;
    eventually("answer", PATIENCE, || token_accepted_by_api_server(&address, &owners.authorities, token))
}
