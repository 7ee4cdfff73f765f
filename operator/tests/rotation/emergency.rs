//! Revocations, and restores in the middle of a rotation.

use keyplane_core::rotation::Stage;
use keyplane_crds::{Condition, RevocationStatus, keys};

use super::*;

const SECRETS: [&str; 4] = ["demo-ca", "demo-etcd", "demo-proxy", "demo-sa"];
const NAMES: [&str; 4] = ["ca", "etcd-ca", "front-proxy-ca", "service-account-key"];

fn settled(world: &World) -> Condition {
    condition_of(&world.observed.status.conditions, "RotationsCompleted").unwrap().clone()
}

fn notice(world: &World) -> RevocationStatus {
    world.observed.status.revocation.clone().unwrap()
}

fn keys(world: &World) -> [String; 4] {
    SECRETS.map(|secret| text(&world.observed, secret, "tls.key"))
}

/// Every file of a kind of every machine, and everything else that holds authorities.
fn bundles(world: &World, file: &str) -> String {
    let mut all: String = world.machines.values().map(|machine| machine.disk[file].clone()).collect();
    all.push_str(&world.observed.config_maps["demo-ca-bundle"].data.as_ref().unwrap()["ca.crt"]);
    all.push_str(&trust_in(&text(&world.observed, "demo-kubeconfig", "value")));
    all
}

fn verified_by_openssl(certificate: &str, authority: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    // The world's clock is not openssl's.
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["verify", "-attime", &(common::noon().as_second() + 7200).to_string(), "-CAfile"]);
    openssl.arg(path("ca.crt", authority)).arg(path("leaf.crt", certificate));
    openssl.output().unwrap().status.success()
}

#[test]
fn nothing_is_revoked_before_somebody_was_told_and_has_confirmed_this_very_revocation() {
    let mut world = World::up(POLICY, 11, false);
    let before = keys(&world);
    world.ask("revoke-certificate-authorities", "leak");
    world.run(5);
    assert_eq!(keys(&world), before);
    let told = settled(&world);
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "RevocationNotConfirmed"));
    let first = notice(&world);
    assert_eq!(first.names, NAMES[..3]);
    assert!(told.message.contains(&first.confirm) && told.message.contains("interrupts"), "{}", told.message);
    let all = first.steps.join("\n");
    for words in ["answers nothing", "cp1, cp2, cp3", "no agent", "demo-kubeconfig", "NotReady", "can't be taken back"]
    {
        assert!(all.contains(words), "{words}: {all}");
    }
    // What confirms another request, another authority, or a part of it, does no more than that.
    world.ask("revoke-certificate-authorities", "leak-2");
    world.ask("confirm-revocation", &first.confirm);
    world.run(5);
    assert_eq!(keys(&world), before);
    let second = notice(&world).confirm;
    assert!(second.split(',').all(|word| !first.confirm.contains(word)), "{second}");
    world.ask("revoke-service-account-key", "leak");
    world.run(1);
    assert_eq!(notice(&world).names, NAMES);
    // Somebody thinks better of it.
    for annotation in ["revoke-certificate-authorities", "revoke-service-account-key"] {
        world.annotations.remove(&format!("keyplane.io/{annotation}"));
    }
    world.ask("confirm-revocation", &second);
    world.run(5);
    assert_eq!(keys(&world), before);
    assert_eq!(world.observed.status.revocation, None);
}

#[test]
fn what_is_revoked_is_good_nowhere_and_is_replaced_exactly_once() {
    let mut world = World::up(POLICY, 3, true);
    let before = keys(&world);
    let old = SECRETS.map(|secret| text(&world.observed, secret, "tls.crt"));
    world.ask("revoke-certificate-authorities", "leak");
    world.ask("revoke-service-account-key", "leak");
    while world.observed.status.revocation.is_none() {
        world.run(1);
    }
    world.interrupted = true;
    let confirm = notice(&world).confirm;
    world.ask("confirm-revocation", &confirm);
    let mut made: Vec<BTreeSet<String>> = vec![BTreeSet::new(); 4];
    for _ in 0..300 {
        world.run(1);
        for (seen, key) in made.iter_mut().zip(keys(&world)) {
            seen.insert(key);
        }
        if NAMES.iter().all(|name| world.is_completed(name)) {
            break;
        }
    }
    assert!(NAMES.iter().all(|name| world.is_completed(name)), "{:#?}", world.observed.status.rotations);
    for (seen, before) in made.iter().zip(&before) {
        assert!(seen.iter().filter(|key| *key != before).count() == 1, "never made twice");
    }
    for (file, old) in [("ca.crt", &old[0]), ("etcd-ca.crt", &old[1]), ("front-proxy-ca.crt", &old[2])] {
        assert!(!bundles(&world, file).contains(old.as_str()), "{file}");
    }
    // What follows from the end has its way, too; from then on everybody of today reaches everybody.
    world.run(10);
    world.interrupted = false;
    for machine in world.machines.values() {
        let authority = text(&world.observed, "demo-ca", "tls.crt");
        assert!(verified_by_openssl(&machine.disk["apiserver.crt"], &authority));
        assert!(!verified_by_openssl(&machine.disk["apiserver.crt"], &old[0]));
        assert!(!chain_is_good(&world.outside.1, &machine.disk["ca.crt"]), "a kubeconfig from before");
        assert!(!machine.started["kube-apiserver"]["sa.pub"].contains(old[3].trim()), "a token from before");
        let etcd = &machine.started["etcd"]["etcd-ca.crt"];
        assert_eq!(etcd, &text(&world.observed, "demo-etcd", "tls.crt"));
        // The kubelet has one of its own again.
        assert_eq!(embedded_credential(&machine.disk["kubelet.conf"]), None);
    }
    world.check_after_revocation();
    for secret in SECRETS {
        let data: Vec<_> = world.observed.secrets[secret].data.as_ref().unwrap().keys().collect();
        assert_eq!(data, ["tls.crt", "tls.key"], "{secret}");
    }
    assert_eq!(settled(&world).reason, "Settled");
    let after = keys(&world);
    world.run(5);
    assert_eq!(keys(&world), after, "the same request asks for nothing more");
    assert!(plan(&world.cluster, &world.observed, world.now).steps.is_empty());
}

#[test]
fn a_revocation_ends_a_rotation_that_is_under_way_in_whichever_stage() {
    for stage in [Stage::Trust, Stage::Kubelets, Stage::Gate] {
        let mut world = World::up(POLICY, 5, true);
        world.ask("rotate-certificate-authorities", "2026");
        while world.set("demo-ca").stage() != Some(stage) {
            world.run(1);
        }
        let set = world.set("demo-ca");
        let both = [set.signing(), set.other().unwrap()].map(|one| one.certificate_pem().to_owned());
        world.ask("revoke-certificate-authorities", "leak");
        let words =
            || status::report(&world.cluster, &world.observed, &[], None, world.now).revocation.unwrap().confirm;
        let confirm = words();
        world.interrupted = true;
        world.ask("confirm-revocation", &confirm);
        // Killed right after the first write, with machines that have had different files.
        let step = plan(&world.cluster, &world.observed, world.now).steps.remove(0);
        carry_out(step, &world.cluster, &mut world.observed);
        let set = world.set("demo-ca");
        assert_eq!((set.stage(), set.revoked().len()), (Some(Stage::Revoke), 2), "{stage:?}");
        for _ in 0..300 {
            world.run(1);
            assert!(plan(&world.cluster, &world.observed, world.now).blockers.is_empty(), "{stage:?}");
            if NAMES[..3].iter().all(|name| world.is_completed(name)) {
                break;
            }
        }
        assert!(world.is_completed("ca"), "{stage:?}: {:#?}", world.observed.status.rotations);
        let all = bundles(&world, "ca.crt");
        assert!(both.iter().all(|one| !all.contains(one.as_str())), "{stage:?}");
        // The rotation that was asked for is not begun once more.
        world.run(10);
        assert!(plan(&world.cluster, &world.observed, world.now).steps.is_empty());
        let machine = &world.observed.secrets["demo-cp1-pki"];
        assert!(
            machine.annotations()[keys::REVOKED_CAS_ANNOTATION]
                .contains(&first_certificate("", &both[0]).unwrap().fingerprint())
        );
    }
}

#[test]
fn a_worker_gets_a_client_certificate_only_while_its_kubelet_is_refused() {
    let mut world = World::up(POLICY, 9, false);
    let metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta = serde_json::from_value(json!({
        "name": "demo-w1-config", "namespace": "default", "labels": {"keyplane.io/node-pool": "workers"},
    }))
    .unwrap();
    let names = |world: &World| {
        let steps = plan(&world.cluster, &world.observed, world.now).steps;
        steps
            .iter()
            .map(|step| match step {
                keyplane_core::plan::Step::Secret(draft) => draft.name.clone(),
                keyplane_core::plan::Step::ConfigMap(wanted) => wanted.name_any(),
                keyplane_core::plan::Step::Removal(removal) => format!("no {}", removal.name),
            })
            .collect::<Vec<_>>()
    };
    world.observed.workers.insert("w1".to_owned(), metadata);
    let kubelets = |world: &World, presented: &str| {
        let mut kubelets = world.observed.target.rotation.kubelets.clone().unwrap_or_default();
        let server = Server { presents: certificates_in("", presented).unwrap(), ..Server::default() };
        kubelets.insert("w1".to_owned(), Some(server));
        Some(kubelets)
    };
    let old = world.machines["cp1"].kubelet_server.clone();
    world.observed.target.rotation.kubelets = kubelets(&world, &old);
    assert!(names(&world).is_empty());
    world.ask("revoke-certificate-authorities", "leak");
    let told = status::report(&world.cluster, &world.observed, &[], None, world.now).revocation.unwrap();
    world.ask("confirm-revocation", &told.confirm);
    world.interrupted = true;
    settle_at(world.now, &world.cluster, &mut world.observed);
    let secret = &world.observed.secrets["demo-w1-pki"];
    assert_eq!(secret.labels()["keyplane.io/node-pool"], "workers");
    assert!(secret.annotations().contains_key(keys::NOT_AFTER_ANNOTATION));
    let kubeconfig = text(&world.observed, "demo-w1-pki", "kubelet.conf");
    assert!(kubeconfig.contains("https://api.demo.example:6443"), "{kubeconfig}");
    let authority = text(&world.observed, "demo-ca", "tls.crt");
    let client = client_in(&kubeconfig);
    assert!(verified_by_openssl(&client, &authority));
    let subject = first_certificate("", &client).unwrap().subject.unwrap();
    assert_eq!(
        (subject.common_name.as_str(), subject.organizations),
        ("system:node:w1", vec!["system:nodes".to_owned()])
    );
    assert_eq!(secret.data.as_ref().unwrap().len(), 2, "that, and where it belongs");
    // It is back: the Secret goes, and does not come again.
    let new = text(&world.observed, "demo-cp1-pki", "apiserver.crt");
    world.observed.target.rotation.kubelets = kubelets(&world, &new);
    assert_eq!(names(&world), ["no demo-w1-pki"]);
    settle_at(world.now, &world.cluster, &mut world.observed);
    assert!(!world.observed.secrets.contains_key("demo-w1-pki"));
}

#[test]
fn a_backup_from_the_middle_of_a_rotation_goes_on() {
    let mut world = World::up(POLICY, 6, true);
    world.ask("rotate-certificate-authorities", "2026");
    while world.set("demo-ca").stage() != Some(Stage::Kubelets) {
        world.run(1);
    }
    let keys = |world: &World| ["tls.key", "previous.key"].map(|key| text(&world.observed, "demo-ca", key));
    let before = keys(&world);
    // The management cluster is gone; a new one has the objects with the label, and nothing else.
    let is_selected =
        |labels: &BTreeMap<String, String>| labels.get(keys::CLUSTER_LABEL).is_some_and(|name| name == "demo");
    let lost = std::mem::take(&mut world.observed);
    world.observed.secrets = lost.secrets.into_iter().filter(|(_, secret)| is_selected(secret.labels())).collect();
    world.observed.config_maps =
        lost.config_maps.into_iter().filter(|(_, config_map)| is_selected(config_map.labels())).collect();
    world.ask("restore", "true");
    world.look();
    world.report();
    assert_eq!(keys(&world), before);
    world.run_until("ca", RotationPhase::Prepared);
    assert_eq!(keys(&world), before);
    world.ask("complete-rotation", "2026");
    world.run_until("ca", RotationPhase::Completed);
    assert_eq!(text(&world.observed, "demo-ca", "tls.key"), before[0]);
}

impl World {
    fn run(&mut self, minutes: usize) {
        for _ in 0..minutes {
            self.tick();
        }
    }

    fn is_completed(&self, name: &str) -> bool {
        self.rotation(name).is_some_and(|rotation| rotation.phase == RotationPhase::Completed)
    }

    /// Everybody reaches everybody again, who is of today.
    fn check_after_revocation(&mut self) {
        let owners = text(&self.observed, "demo-kubeconfig", "value");
        self.outside = (trust_in(&owners), client_in(&owners), text(&self.observed, "demo-sa", "tls.crt"));
        self.run(10);
    }
}

#[test]
fn an_authority_that_the_user_gives_is_revoked_for_the_next_one_that_the_user_gives_and_never_comes_back() {
    let mut observed = Observed::default();
    give_all(&mut observed, common::noon());
    let mut world = World::up_with(&format!("{THREE}{GIVEN}"), observed, POLICY, 4, true);
    let stolen = world.observed.secrets["corp-ca"].clone();
    let before = text(&world.observed, "demo-ca", "tls.crt");
    world.ask("revoke-certificate-authorities", "leak");
    world.run(1);
    let notice = notice(&world);
    assert!(notice.steps[0].contains("Secret corp-ca still has the one that is to be revoked"), "{:?}", notice.steps);
    world.ask("confirm-revocation", &notice.confirm);
    world.run(3);
    assert_eq!(text(&world.observed, "demo-ca", "tls.crt"), before, "there is nothing to put in its place");
    world.interrupted = true;
    give_all(&mut world.observed, world.now);
    let next = text(&world.observed, "corp-ca", "tls.crt");
    world.run_until("ca", RotationPhase::Completed);
    assert!(next.contains(text(&world.observed, "demo-ca", "tls.crt").trim()));
    assert_eq!(world.condition("CertificateAuthoritiesInSync").0, "InSync");
    // A pipeline that puts the old one there again changes nothing.
    let now = text(&world.observed, "demo-ca", "tls.crt");
    world.observed.secrets.insert("corp-ca".to_owned(), stolen);
    world.run(10);
    let (reason, message) = world.condition("CertificateAuthoritiesInSync");
    assert_eq!(reason, "SecretUnusable");
    assert!(message.contains("was revoked"), "{message}");
    assert_eq!(text(&world.observed, "demo-ca", "tls.crt"), now);
}
