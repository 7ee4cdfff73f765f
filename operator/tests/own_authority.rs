//! User-provided CAs: accepted and refused Secrets, and the copies that outlive the user's Secret.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{SMALL, add_secret, cluster, intermediate, new_ca, noon, settle, settle_at, settled, text};
use k8s_openapi::jiff::SignedDuration;
use keyplane_core::blocker::Blocker;
use keyplane_core::model::Cluster;
use keyplane_core::observed::Observed;
use keyplane_core::pki::{CertificateAuthority, first_certificate};
use keyplane_core::plan::{Plan, plan};
use keyplane_core::status;
use keyplane_crds::condition_of;
use kube::ResourceExt;

const USER_PROVIDED: &str = "
certificateAuthorities:
  cluster: {secretRef: {name: corp-ca}}
  frontProxy: {secretRef: {name: corp-proxy}}
";

fn user_provided_cluster() -> Cluster {
    cluster(&format!("{SMALL}{USER_PROVIDED}"))
}

fn pair(ca: &CertificateAuthority) -> [(&'static str, &str); 2] {
    [("tls.crt", ca.certificate_pem()), ("tls.key", ca.key().unwrap().pem())]
}

/// Two valid Secrets.
fn ca_secrets() -> Observed {
    let mut observed = Observed::default();
    add_secret(&mut observed, "corp-ca", &pair(&new_ca("Corp", noon())));
    add_secret(&mut observed, "corp-proxy", &pair(&new_ca("Corp", noon())));
    observed
}

fn condition(cluster: &Cluster, observed: &Observed, plan: &Plan, name: &str) -> (String, String) {
    let status = status::report(cluster, observed, &plan.blockers, None, noon());
    let found = condition_of(&status.conditions, name).unwrap();
    (found.reason.clone(), found.message.clone())
}

#[test]
fn uses_provided_cas_and_generates_the_others() {
    let (cluster, mut observed) = (user_provided_cluster(), ca_secrets());
    let users = observed.secrets["corp-ca"].clone();
    let last = settle(&cluster, &mut observed);
    assert!(last.blockers.is_empty(), "{:?}", last.blockers);
    for (ours, theirs) in [("demo-ca", "corp-ca"), ("demo-proxy", "corp-proxy")] {
        assert_eq!(observed.secrets[ours].data, observed.secrets[theirs].data);
    }
    assert_eq!(observed.secrets["corp-ca"], users, "the user's Secret is never written");
    assert!(observed.secrets.contains_key("demo-etcd"));
    let (reason, message) = condition(&cluster, &observed, &last, "CertificateAuthoritiesInSync");
    assert_eq!((reason.as_str(), message.contains("ca is the CA in Secret corp-ca")), ("InSync", true), "{message}");
}

#[test]
fn rejects_unusable_ca_secrets_and_generates_no_ca() {
    let refusal = |change: &dyn Fn(&mut Observed)| {
        let mut observed = ca_secrets();
        change(&mut observed);
        let mut last = settle(&user_provided_cluster(), &mut observed);
        assert!(!observed.secrets.contains_key("demo-ca") || !observed.secrets.contains_key("demo-proxy"));
        assert!(!observed.secrets.contains_key("demo-kubeconfig"));
        assert!(last.blockers.iter().all(Blocker::requires_secret));
        let blocker = last.blockers.remove(0);
        (blocker.reason, blocker.message)
    };
    let field = "spec.certificateAuthorities.cluster.secretRef: ";
    let (reason, message) = refusal(&|observed| _ = observed.secrets.remove("corp-ca"));
    assert_eq!(reason, "SecretNotFound");
    assert!(message.starts_with(field) && message.contains("kubectl create secret tls corp-ca"), "{message}");
    let unusable = |change: &dyn Fn(&mut Observed), words: &str| {
        let (reason, message) = refusal(change);
        assert_eq!(reason, "SecretUnusable");
        assert!(message.starts_with(&format!("{field}Secret corp-ca ")) && message.contains(words), "{message}");
    };
    let one = new_ca("Corp", noon());
    let (certificate, key) = (one.certificate_pem(), one.key().unwrap().pem());
    unusable(&|observed| add_secret(observed, "corp-ca", &[("tls.key", key)]), "lacks tls.crt");
    let other = new_ca("Corp", noon());
    let mixed = [("tls.crt", certificate), ("tls.key", other.key().unwrap().pem())];
    unusable(&|observed| add_secret(observed, "corp-ca", &mixed), "is not the key of the first certificate");
    let labelled = |observed: &mut Observed| {
        let labels = observed.secrets.get_mut("corp-ca").unwrap().labels_mut();
        labels.insert("app.kubernetes.io/managed-by".to_owned(), "keyplane".to_owned());
    };
    unusable(&labelled, "remove the label");
    let later = new_ca("Corp", noon() + SignedDuration::from_hours(1));
    unusable(&|observed| add_secret(observed, "corp-ca", &pair(&later)), "is not valid before 2026-11-23T13:00:00Z");
}

#[test]
fn rejects_one_ca_for_two_roles() {
    let root = new_ca("Corp Root", noon());
    let (certificate, key, above) = intermediate("Corp", &root, noon());
    let below = [("tls.crt", certificate.as_str()), ("tls.key", &key), ("ca.crt", &above)];
    let twice = new_ca("Corp", noon());
    for (ca, proxy) in [(&pair(&twice)[..], &pair(&twice)[..]), (&below[..], &pair(&root)[..])] {
        for (ca, proxy) in [(ca, proxy), (proxy, ca)] {
            let mut observed = Observed::default();
            add_secret(&mut observed, "corp-ca", ca);
            add_secret(&mut observed, "corp-proxy", proxy);
            let last = settle(&user_provided_cluster(), &mut observed);
            let words = "clients of the one would be accepted by the other";
            assert!(last.blockers.iter().all(|blocker| blocker.message.contains(words)), "{:?}", last.blockers);
            assert_eq!(last.blockers.len(), 2);
        }
    }
    // A CA that Keyplane uses already can not be used a second time either.
    let (_, mut observed) = settled(SMALL);
    let (certificate, key) = (text(&observed, "demo-ca", "tls.crt"), text(&observed, "demo-ca", "tls.key"));
    add_secret(&mut observed, "corp-proxy", &[("tls.crt", &certificate), ("tls.key", &key)]);
    add_secret(&mut observed, "corp-ca", &pair(&twice));
    let next = plan(&user_provided_cluster(), &observed, noon());
    let (reason, message) = condition(&user_provided_cluster(), &observed, &next, "CertificateAuthoritiesInSync");
    assert_eq!(reason, "SecretUnusable");
    assert!(message.contains("frontProxy.secretRef") && message.contains("a CA that is also ca"), "{message}");
    assert!(next.blockers.is_empty(), "the cluster continues: {:?}", next.blockers);
    // Two CAs below one root are different CAs.
    let sibling = |name: &str| intermediate(name, &root, noon());
    let (one, two) = (sibling("one"), sibling("two"));
    let mut observed = Observed::default();
    for (name, (certificate, key, root)) in [("corp-ca", &one), ("corp-proxy", &two)] {
        add_secret(&mut observed, name, &[("tls.crt", certificate), ("tls.key", key), ("ca.crt", root)]);
    }
    assert!(settle(&user_provided_cluster(), &mut observed).blockers.is_empty());
}

#[test]
fn running_cluster_uses_its_copy_of_the_ca_secret() {
    let cluster = user_provided_cluster();
    let mut observed = ca_secrets();
    settle(&cluster, &mut observed);
    let kept = observed.secrets["demo-ca"].clone();
    let users = observed.secrets.remove("corp-ca").unwrap();
    add_secret(&mut observed, "corp-proxy", &[("tls.crt", "broken"), ("tls.key", "broken")]);
    let next = plan(&cluster, &observed, noon());
    assert!(next.steps.is_empty() && next.blockers.is_empty());
    let (reason, message) = condition(&cluster, &observed, &next, "CertificateAuthoritiesInSync");
    assert_eq!(reason, "SecretNotFound");
    for words in [
        "keeps the CA in Secret demo-ca",
        "keeps the CA in Secret demo-proxy",
        "tls.crt does not consist of certificates",
    ] {
        assert!(message.contains(words), "{message}");
    }
    // The user's Secret with the same CA restores a lost copy, but another CA does not.
    observed.secrets.insert("corp-ca".to_owned(), users);
    observed.secrets.remove("demo-ca");
    let last = settle(&cluster, &mut observed);
    assert!(last.blockers.is_empty(), "{:?}", last.blockers);
    assert_eq!(observed.secrets["demo-ca"].data, kept.data);
    observed.secrets.remove("demo-ca");
    add_secret(&mut observed, "corp-ca", &pair(&new_ca("Corp", noon())));
    assert_eq!(settle(&cluster, &mut observed).blockers[0].reason, "CAMissing");
}

#[test]
fn rejects_rotation_requests_for_user_provided_cas() {
    let all = format!("{SMALL}{USER_PROVIDED}  etcd: {{secretRef: {{name: corp-etcd}}}}\n");
    let mut observed = ca_secrets();
    add_secret(&mut observed, "corp-etcd", &pair(&new_ca("Corp", noon())));
    settle(&cluster(&all), &mut observed);
    for (rotate, words) in [
        ("rotate: {clusterCA: a}", "put the new CA with its key into Secret corp-ca"),
        ("rotate: {certificateAuthorities: a}", "spec.certificateAuthorities.frontProxy.secretRef provides it"),
        ("rotate: {renewCertificateAuthorities: a}", "put a renewed certificate of the same key into Secret corp-etcd"),
    ] {
        let requested = cluster(&format!("{all}{rotate}\n"));
        let next = plan(&requested, &observed, noon());
        assert!(next.steps.is_empty() && next.blockers.is_empty());
        let (reason, message) = condition(&requested, &observed, &next, "RotationsCompleted");
        assert_eq!(reason, "RequestRefused", "{message}");
        assert!(message.contains(words), "{message}");
    }
    // A copy without a reference in the spec can't be renewed, unless it is self-signed.
    let (certificate, key, root) = intermediate("Corp", &new_ca("Root", noon()), noon());
    let mut observed = ca_secrets();
    add_secret(&mut observed, "corp-ca", &[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", &root)]);
    settle(&user_provided_cluster(), &mut observed);
    let late = noon() + SignedDuration::from_hours(3000);
    let alone = cluster(&format!("{SMALL}rotate: {{renewCertificateAuthorities: a}}\n"));
    let last = settle_at(late, &alone, &mut observed);
    let (reason, message) = condition(&alone, &observed, &last, "RotationsCompleted");
    assert_eq!(reason, "WaitingToStart", "{message}");
    assert_eq!(text(&observed, "demo-ca", "tls.crt"), certificate);
    assert_ne!(text(&observed, "demo-proxy", "tls.crt"), text(&observed, "corp-proxy", "tls.crt"));
}

#[test]
fn expired_ca_and_its_leaves_are_renewed_at_once() {
    let (_, mut observed) = settled(SMALL);
    let late = noon() + SignedDuration::from_hours(24 * 4000);
    let before = observed.secrets.clone();
    let own = cluster(SMALL);
    assert!(settle_at(late, &own, &mut observed).steps.is_empty());
    assert_eq!(observed.secrets["demo-cp1-pki"], before["demo-cp1-pki"], "nothing can be issued from it");
    let requested = cluster(&format!("{SMALL}rotate: {{renewCertificateAuthorities: late}}\n"));
    let last = settle_at(late, &requested, &mut observed);
    assert!(last.blockers.is_empty() && last.steps.is_empty(), "{:?}", last.blockers);
    for name in ["demo-ca", "demo-etcd", "demo-proxy"] {
        let facts = first_certificate(name, &text(&observed, name, "tls.crt")).unwrap();
        let old = String::from_utf8(before[name].data.as_ref().unwrap()["tls.crt"].0.clone()).unwrap();
        let old = first_certificate(name, &old).unwrap();
        assert!(facts.is_renewal_of(&old) && facts.not_after > late && old.not_after < late, "{name}");
    }
    let status = status::report(&requested, &observed, &[], None, late);
    assert!(status.certificates.iter().all(|certificate| certificate.not_after.0 > late));
    let valid = condition_of(&status.conditions, "CertificatesValid").unwrap();
    assert_eq!(valid.reason, "Valid", "{}", valid.message);
}

#[test]
fn adopts_renewed_ca_certificate_of_the_same_name_only() {
    let cluster = user_provided_cluster();
    let mut observed = ca_secrets();
    settle(&cluster, &mut observed);
    let key = text(&observed, "corp-ca", "tls.key");
    let old = CertificateAuthority::load("corp", &text(&observed, "corp-ca", "tls.crt"), &key).unwrap();
    let late = noon() + SignedDuration::from_hours(2401);
    let renewed = keyplane_issuance::x509::renew_ca(&old, late, late + SignedDuration::from_hours(999)).unwrap();
    add_secret(&mut observed, "corp-ca", &pair(&renewed));
    // The CA has expired, so the renewal waits for nothing.
    let last = settle_at(late, &cluster, &mut observed);
    assert!(last.blockers.is_empty() && last.steps.is_empty(), "{:?}", last.blockers);
    assert_eq!(text(&observed, "demo-ca", "tls.crt"), renewed.certificate_pem());
    let root = new_ca("Root", noon());
    let renamed = keyplane_issuance::x509::cross_sign(&renewed, &root, noon()).unwrap().unwrap();
    add_secret(&mut observed, "corp-ca", &[("tls.crt", &renamed), ("tls.key", &key)]);
    let next = plan(&cluster, &observed, noon());
    // The same name and key below another root CA: for all issued certificates it is the same CA.
    let (reason, message) = condition(&cluster, &observed, &next, "CertificateAuthoritiesInSync");
    assert_eq!(reason, "WaitingToStart", "{message}");
    assert!(message.contains("waits for its renewal with the certificate in Secret corp-ca"), "{message}");
}

#[test]
fn revoked_ca_is_not_adopted_again() {
    let cluster = user_provided_cluster();
    let mut observed = ca_secrets();
    settle(&cluster, &mut observed);
    let gone = first_certificate("corp", &text(&observed, "corp-ca", "tls.crt")).unwrap();
    let (_, other) = settled(SMALL);
    let mut secret = other.secrets["demo-ca"].clone();
    secret.annotations_mut().insert("keyplane.io/revoked-cas".to_owned(), gone.fingerprint());
    observed.secrets.insert("demo-ca".to_owned(), secret);
    let (reason, message) = condition(&cluster, &observed, &Plan::default(), "CertificateAuthoritiesInSync");
    assert_eq!(reason, "SecretUnusable");
    assert!(message.contains("was revoked: provide another one"), "{message}");
}
