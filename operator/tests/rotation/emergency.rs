//! Revocations, and restores during a rotation.

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

/// The file of every node, and every other object that holds CAs.
fn bundles(world: &World, file: &str) -> String {
    let mut all: String = world.nodes.values().map(|simulated| simulated.disk[file].clone()).collect();
    all.push_str(&world.observed.config_maps["demo-ca-bundle"].data.as_ref().unwrap()["ca.crt"]);
    all.push_str(&trust_in(&text(&world.observed, "demo-kubeconfig", "value")));
    all
}

fn verified_by_openssl(certificate: &str, ca: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    // The clock of the test is not openssl's.
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["verify", "-attime", &(common::noon().as_second() + 7200).to_string(), "-CAfile"]);
    openssl.arg(path("ca.crt", ca)).arg(path("leaf.crt", certificate));
    openssl.output().unwrap().status.success()
}

#[test]
fn revokes_only_after_confirmation_of_the_same_request() {
    let mut world = World::up(POLICY, 11, false);
    let before = keys(&world);
    world.annotate("revoke-certificate-authorities", "leak");
    world.run(5);
    assert_eq!(keys(&world), before);
    let reported = settled(&world);
    assert_eq!((reported.status.as_str(), reported.reason.as_str()), ("False", "RevocationNotConfirmed"));
    let first = notice(&world);
    assert_eq!(first.names, NAMES[..3]);
    assert!(
        reported.message.contains(&first.confirm) && reported.message.contains("interrupts"),
        "{}",
        reported.message
    );
    let all = first.steps.join("\n");
    for words in ["is unavailable", "cp1, cp2, cp3", "no agent", "demo-kubeconfig", "NotReady", "can't be rolled back"]
    {
        assert!(all.contains(words), "{words}: {all}");
    }
    // A confirmation of another request, of another CA, or of a part of the request confirms nothing else.
    world.annotate("revoke-certificate-authorities", "leak-2");
    world.annotate("confirm-revocation", &first.confirm);
    world.run(5);
    assert_eq!(keys(&world), before);
    let second = notice(&world).confirm;
    assert!(second.split(',').all(|word| !first.confirm.contains(word)), "{second}");
    world.annotate("revoke-service-account-key", "leak");
    world.run(1);
    assert_eq!(notice(&world).names, NAMES);
    // A user withdraws the request.
    for annotation in ["revoke-certificate-authorities", "revoke-service-account-key"] {
        world.annotations.remove(&format!("keyplane.io/{annotation}"));
    }
    world.annotate("confirm-revocation", &second);
    world.run(5);
    assert_eq!(keys(&world), before);
    assert_eq!(world.observed.status.revocation, None);
}

#[test]
fn revoked_keys_are_rejected_and_replaced_exactly_once() {
    let mut world = World::up(POLICY, 3, true);
    let before = keys(&world);
    let old = SECRETS.map(|secret| text(&world.observed, secret, "tls.crt"));
    world.annotate("revoke-certificate-authorities", "leak");
    world.annotate("revoke-service-account-key", "leak");
    while world.observed.status.revocation.is_none() {
        world.run(1);
    }
    world.interrupted = true;
    let confirm = notice(&world).confirm;
    world.annotate("confirm-revocation", &confirm);
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
        assert!(seen.iter().filter(|key| *key != before).count() == 1, "never generated twice");
    }
    for (file, old) in [("ca.crt", &old[0]), ("etcd-ca.crt", &old[1]), ("front-proxy-ca.crt", &old[2])] {
        assert!(!bundles(&world, file).contains(old.as_str()), "{file}");
    }
    // The steps after the completion take effect. From then on every current client reaches every server.
    world.run(10);
    world.interrupted = false;
    for simulated in world.nodes.values() {
        let ca = text(&world.observed, "demo-ca", "tls.crt");
        assert!(verified_by_openssl(&simulated.disk["apiserver.crt"], &ca));
        assert!(!verified_by_openssl(&simulated.disk["apiserver.crt"], &old[0]));
        assert!(!chain_is_valid(&world.outside.1, &simulated.disk["ca.crt"]), "an old kubeconfig");
        assert!(!simulated.started["kube-apiserver"]["sa.pub"].contains(old[3].trim()), "an old token");
        let etcd = &simulated.started["etcd"]["etcd-ca.crt"];
        assert_eq!(etcd, &text(&world.observed, "demo-etcd", "tls.crt"));
        // The kubelet has its own certificate again.
        assert_eq!(embedded_credential(&simulated.disk["kubelet.conf"]), None);
    }
    world.check_after_revocation();
    for secret in SECRETS {
        let data: Vec<_> = world.observed.secrets[secret].data.as_ref().unwrap().keys().collect();
        assert_eq!(data, ["tls.crt", "tls.key"], "{secret}");
    }
    assert_eq!(settled(&world).reason, "Settled");
    let after = keys(&world);
    world.run(5);
    assert_eq!(keys(&world), after, "the same request requests nothing more");
    assert!(plan(&world.cluster, &world.observed, world.now).steps.is_empty());
}

#[test]
fn revocation_ends_a_rotation_at_any_stage() {
    for stage in [Stage::Trust, Stage::Kubelets, Stage::Gate] {
        let mut world = World::up(POLICY, 5, true);
        world.annotate("rotate-certificate-authorities", "2026");
        while world.set("demo-ca").stage() != Some(stage) {
            world.run(1);
        }
        let set = world.set("demo-ca");
        let both = [set.signing(), set.other().unwrap()].map(|one| one.certificate_pem().to_owned());
        world.annotate("revoke-certificate-authorities", "leak");
        let words =
            || status::report(&world.cluster, &world.observed, &[], None, world.now).revocation.unwrap().confirm;
        let confirm = words();
        world.interrupted = true;
        world.annotate("confirm-revocation", &confirm);
        // Killed right after the first write, with different files on the nodes.
        let step = plan(&world.cluster, &world.observed, world.now).steps.remove(0);
        execute(step, &world.cluster, &mut world.observed);
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
        // The requested rotation does not start again.
        world.run(10);
        assert!(plan(&world.cluster, &world.observed, world.now).steps.is_empty());
        let secret = &world.observed.secrets["demo-cp1-pki"];
        assert!(
            secret.annotations()[keys::REVOKED_CAS_ANNOTATION]
                .contains(&first_certificate("", &both[0]).unwrap().fingerprint())
        );
    }
}

#[test]
fn worker_gets_a_client_certificate_only_while_refused() {
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
    let old = world.nodes["cp1"].kubelet_server.clone();
    world.observed.target.rotation.kubelets = kubelets(&world, &old);
    assert!(names(&world).is_empty());
    world.annotate("revoke-certificate-authorities", "leak");
    let reported = status::report(&world.cluster, &world.observed, &[], None, world.now).revocation.unwrap();
    world.annotate("confirm-revocation", &reported.confirm);
    world.interrupted = true;
    settle_at(world.now, &world.cluster, &mut world.observed);
    let secret = &world.observed.secrets["demo-w1-pki"];
    assert_eq!(secret.labels()["keyplane.io/node-pool"], "workers");
    assert!(secret.annotations().contains_key(keys::NOT_AFTER_ANNOTATION));
    let kubeconfig = text(&world.observed, "demo-w1-pki", "kubelet.conf");
    assert!(kubeconfig.contains("https://api.demo.example:6443"), "{kubeconfig}");
    let ca = text(&world.observed, "demo-ca", "tls.crt");
    let client = client_in(&kubeconfig);
    assert!(verified_by_openssl(&client, &ca));
    let subject = first_certificate("", &client).unwrap().subject.unwrap();
    assert_eq!(
        (subject.common_name.as_str(), subject.organizations),
        ("system:node:w1", vec!["system:nodes".to_owned()])
    );
    assert_eq!(secret.data.as_ref().unwrap().len(), 2, "the kubeconfig and its index");
    // The node is back: the Secret is deleted, and is not created again.
    let new = text(&world.observed, "demo-cp1-pki", "apiserver.crt");
    world.observed.target.rotation.kubelets = kubelets(&world, &new);
    assert_eq!(names(&world), ["no demo-w1-pki"]);
    settle_at(world.now, &world.cluster, &mut world.observed);
    assert!(!world.observed.secrets.contains_key("demo-w1-pki"));
}

#[test]
fn restored_backup_continues_its_rotation() {
    let mut world = World::up(POLICY, 6, true);
    world.annotate("rotate-certificate-authorities", "2026");
    while world.set("demo-ca").stage() != Some(Stage::Kubelets) {
        world.run(1);
    }
    let keys = |world: &World| ["tls.key", "previous.key"].map(|key| text(&world.observed, "demo-ca", key));
    let before = keys(&world);
    // The management cluster is lost. A new one has the labelled objects, and nothing else.
    let is_selected =
        |labels: &BTreeMap<String, String>| labels.get(keys::CLUSTER_LABEL).is_some_and(|name| name == "demo");
    let lost = std::mem::take(&mut world.observed);
    world.observed.secrets = lost.secrets.into_iter().filter(|(_, secret)| is_selected(secret.labels())).collect();
    world.observed.config_maps =
        lost.config_maps.into_iter().filter(|(_, config_map)| is_selected(config_map.labels())).collect();
    world.annotate("restore", "true");
    world.observe();
    world.report();
    assert_eq!(keys(&world), before);
    world.run_until("ca", RotationPhase::Prepared);
    assert_eq!(keys(&world), before);
    world.annotate("complete-rotation", "2026");
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

    /// Checks that every current client reaches every server again.
    fn check_after_revocation(&mut self) {
        let admin = text(&self.observed, "demo-kubeconfig", "value");
        self.outside = (trust_in(&admin), client_in(&admin), text(&self.observed, "demo-sa", "tls.crt"));
        self.run(10);
    }
}

#[test]
fn revoked_user_provided_ca_is_replaced_and_never_returns() {
    let mut observed = Observed::default();
    add_ca_secrets(&mut observed, common::noon());
    let mut world = World::up_with(&format!("{THREE}{USER_PROVIDED}"), observed, POLICY, 4, true);
    let stolen = world.observed.secrets["corp-ca"].clone();
    let before = text(&world.observed, "demo-ca", "tls.crt");
    world.annotate("revoke-certificate-authorities", "leak");
    world.run(1);
    let notice = notice(&world);
    assert!(notice.steps[0].contains("Secret corp-ca still has the CA that is to be revoked"), "{:?}", notice.steps);
    world.annotate("confirm-revocation", &notice.confirm);
    world.run(3);
    assert_eq!(text(&world.observed, "demo-ca", "tls.crt"), before, "no replacement exists yet");
    world.interrupted = true;
    add_ca_secrets(&mut world.observed, world.now);
    let next = text(&world.observed, "corp-ca", "tls.crt");
    world.run_until("ca", RotationPhase::Completed);
    assert!(next.contains(text(&world.observed, "demo-ca", "tls.crt").trim()));
    assert_eq!(world.condition("CertificateAuthoritiesInSync").0, "InSync");
    // A pipeline that restores the old CA in the user's Secret changes nothing.
    let now = text(&world.observed, "demo-ca", "tls.crt");
    world.observed.secrets.insert("corp-ca".to_owned(), stolen);
    world.run(10);
    let (reason, message) = world.condition("CertificateAuthoritiesInSync");
    assert_eq!(reason, "SecretUnusable");
    assert!(message.contains("was revoked"), "{message}");
    assert_eq!(text(&world.observed, "demo-ca", "tls.crt"), now);
}
