//! Everything is rotated under a load, on the smallest cluster that shows it: no request fails, and no workload's pod is
//! restarted. `make lab-rotation` does the same on three control-plane machines and two workers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keyplane_e2e::eventually;
use keyplane_e2e::installation::PATIENCE;
use keyplane_e2e::load::Load;
use keyplane_e2e::load::credentials::{
    Authority, accepted_as_front_proxy, accepted_by_api_server, accepted_by_etcd, accepted_by_etcd_as_peer,
    accepted_by_kubelet,
};
use keyplane_e2e::rotation_lab::{CLUSTER, Scene, Size, lock, rotate_leaves};

/// The API server looks at its serving pair every minute.
const SETTLE: Duration = Duration::from_secs(75);

#[test]
#[ignore = "needs root and the lab's parts: make test"]
fn nobody_notices_a_rotation() -> Result<()> {
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
