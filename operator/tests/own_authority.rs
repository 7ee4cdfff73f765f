//! Authorities of the user's own: what is taken, what is refused, and that nothing is lost with the user's Secret.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{SMALL, cluster, give, intermediate, mint, noon, settle, settle_at, settled, text};
use k8s_openapi::jiff::SignedDuration;
use keyplane_core::blocker::Blocker;
use keyplane_core::model::Cluster;
use keyplane_core::observed::Observed;
use keyplane_core::pki::{Authority, first_certificate};
use keyplane_core::plan::{Plan, plan, status};
use keyplane_crds::condition_of;
use kube::ResourceExt;

const GIVEN: &str = "
certificateAuthorities:
  cluster: {secretRef: {name: corp-ca}}
  frontProxy: {secretRef: {name: corp-proxy}}
";

fn given_cluster() -> Cluster {
    cluster(&format!("{SMALL}{GIVEN}"))
}

fn pair(authority: &Authority) -> [(&'static str, &str); 2] {
    [("tls.crt", authority.certificate_pem()), ("tls.key", authority.key().unwrap().pem())]
}

/// Two good Secrets.
fn given() -> Observed {
    let mut observed = Observed::default();
    give(&mut observed, "corp-ca", &pair(&mint("Corp", noon())));
    give(&mut observed, "corp-proxy", &pair(&mint("Corp", noon())));
    observed
}

fn condition(cluster: &Cluster, observed: &Observed, plan: &Plan, name: &str) -> (String, String) {
    let status = status::report(cluster, observed, &plan.blockers, None, noon());
    let found = condition_of(&status.conditions, name).unwrap();
    (found.reason.clone(), found.message.clone())
}

#[test]
fn the_users_authorities_are_taken_over_and_the_others_are_made() {
    let (cluster, mut observed) = (given_cluster(), given());
    let users = observed.secrets["corp-ca"].clone();
    let last = settle(&cluster, &mut observed);
    assert!(last.blockers.is_empty(), "{:?}", last.blockers);
    for (ours, theirs) in [("demo-ca", "corp-ca"), ("demo-proxy", "corp-proxy")] {
        assert_eq!(observed.secrets[ours].data, observed.secrets[theirs].data);
    }
    assert_eq!(observed.secrets["corp-ca"], users, "the user's Secret is never written");
    assert!(observed.secrets.contains_key("demo-etcd"));
    let (reason, message) = condition(&cluster, &observed, &last, "CertificateAuthoritiesInSync");
    assert_eq!((reason.as_str(), message.contains("ca is that of Secret corp-ca")), ("InSync", true), "{message}");
}

#[test]
fn what_can_not_be_an_authority_is_refused_with_the_field_and_the_cure_and_none_is_made_for_it() {
    let refusal = |change: &dyn Fn(&mut Observed)| {
        let mut observed = given();
        change(&mut observed);
        let mut last = settle(&given_cluster(), &mut observed);
        assert!(!observed.secrets.contains_key("demo-ca") || !observed.secrets.contains_key("demo-proxy"));
        assert!(!observed.secrets.contains_key("demo-kubeconfig"));
        assert!(last.blockers.iter().all(Blocker::waits_for_a_secret));
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
    let one = mint("Corp", noon());
    let (certificate, key) = (one.certificate_pem(), one.key().unwrap().pem());
    unusable(&|observed| give(observed, "corp-ca", &[("tls.key", key)]), "lacks tls.crt");
    let other = mint("Corp", noon());
    let mixed = [("tls.crt", certificate), ("tls.key", other.key().unwrap().pem())];
    unusable(&|observed| give(observed, "corp-ca", &mixed), "is not the key of the first certificate");
    let labelled = |observed: &mut Observed| {
        let labels = observed.secrets.get_mut("corp-ca").unwrap().labels_mut();
        labels.insert("app.kubernetes.io/managed-by".to_owned(), "keyplane".to_owned());
    };
    unusable(&labelled, "take it off");
    let later = mint("Corp", noon() + SignedDuration::from_hours(1));
    unusable(&|observed| give(observed, "corp-ca", &pair(&later)), "is valid only from 2026-11-23T13:00:00Z on");
}

#[test]
fn nobody_is_let_in_by_two_authorities() {
    let root = mint("Corp Root", noon());
    let (certificate, key, above) = intermediate("Corp", &root, noon());
    let below = [("tls.crt", certificate.as_str()), ("tls.key", &key), ("ca.crt", &above)];
    let twice = mint("Corp", noon());
    for (ca, proxy) in [(&pair(&twice)[..], &pair(&twice)[..]), (&below[..], &pair(&root)[..])] {
        for (ca, proxy) in [(ca, proxy), (proxy, ca)] {
            let mut observed = Observed::default();
            give(&mut observed, "corp-ca", ca);
            give(&mut observed, "corp-proxy", proxy);
            let last = settle(&given_cluster(), &mut observed);
            let words = "who is let in by the one would be let in by the other";
            assert!(last.blockers.iter().all(|blocker| blocker.message.contains(words)), "{:?}", last.blockers);
            assert_eq!(last.blockers.len(), 2);
        }
    }
    // Nor by one that there is already.
    let (_, mut observed) = settled(SMALL);
    let (certificate, key) = (text(&observed, "demo-ca", "tls.crt"), text(&observed, "demo-ca", "tls.key"));
    give(&mut observed, "corp-proxy", &[("tls.crt", &certificate), ("tls.key", &key)]);
    give(&mut observed, "corp-ca", &pair(&twice));
    let next = plan(&given_cluster(), &observed, noon());
    let (reason, message) = condition(&given_cluster(), &observed, &next, "CertificateAuthoritiesInSync");
    assert_eq!(reason, "SecretUnusable");
    assert!(message.contains("frontProxy.secretRef") && message.contains("that of ca too"), "{message}");
    assert!(next.blockers.is_empty(), "the cluster goes on: {:?}", next.blockers);
    // Two below one root are two.
    let sibling = |name: &str| intermediate(name, &root, noon());
    let (one, two) = (sibling("one"), sibling("two"));
    let mut observed = Observed::default();
    for (name, (certificate, key, root)) in [("corp-ca", &one), ("corp-proxy", &two)] {
        give(&mut observed, name, &[("tls.crt", certificate), ("tls.key", key), ("ca.crt", root)]);
    }
    assert!(settle(&given_cluster(), &mut observed).blockers.is_empty());
}

#[test]
fn a_cluster_that_runs_goes_on_with_its_copy_whatever_becomes_of_the_users_secret() {
    let cluster = given_cluster();
    let mut observed = given();
    settle(&cluster, &mut observed);
    let kept = observed.secrets["demo-ca"].clone();
    let users = observed.secrets.remove("corp-ca").unwrap();
    give(&mut observed, "corp-proxy", &[("tls.crt", "broken"), ("tls.key", "broken")]);
    let next = plan(&cluster, &observed, noon());
    assert!(next.steps.is_empty() && next.blockers.is_empty());
    let (reason, message) = condition(&cluster, &observed, &next, "CertificateAuthoritiesInSync");
    assert_eq!(reason, "SecretNotFound");
    for words in ["goes on with what Secret demo-ca has", "goes on with what Secret demo-proxy has", "tls.crt holds"] {
        assert!(message.contains(words), "{message}");
    }
    // And the other way round: the user's Secret restores a lost copy, and another one does not.
    observed.secrets.insert("corp-ca".to_owned(), users);
    observed.secrets.remove("demo-ca");
    let last = settle(&cluster, &mut observed);
    assert!(last.blockers.is_empty(), "{:?}", last.blockers);
    assert_eq!(observed.secrets["demo-ca"].data, kept.data);
    observed.secrets.remove("demo-ca");
    give(&mut observed, "corp-ca", &pair(&mint("Corp", noon())));
    assert_eq!(settle(&cluster, &mut observed).blockers[0].reason, "CAMissing");
}

#[test]
fn requests_that_the_users_secret_has_to_answer_are_refused_with_the_cure() {
    let all = format!("{SMALL}{GIVEN}  etcd: {{secretRef: {{name: corp-etcd}}}}\n");
    let mut observed = given();
    give(&mut observed, "corp-etcd", &pair(&mint("Corp", noon())));
    settle(&cluster(&all), &mut observed);
    for (rotate, words) in [
        ("rotate: {clusterCA: a}", "put the next one with its key into Secret corp-ca"),
        ("rotate: {certificateAuthorities: a}", "spec.certificateAuthorities.frontProxy.secretRef gives it"),
        ("rotate: {renewCertificateAuthorities: a}", "put a renewed certificate of the same key into Secret corp-etcd"),
    ] {
        let asked = cluster(&format!("{all}{rotate}\n"));
        let next = plan(&asked, &observed, noon());
        assert!(next.steps.is_empty() && next.blockers.is_empty());
        let (reason, message) = condition(&asked, &observed, &next, "RotationsCompleted");
        assert_eq!(reason, "RequestRefused", "{message}");
        assert!(message.contains(words), "{message}");
    }
    // A copy that is left without its reference can't be renewed here either, unless it has signed itself.
    let (certificate, key, root) = intermediate("Corp", &mint("Root", noon()), noon());
    let mut observed = given();
    give(&mut observed, "corp-ca", &[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", &root)]);
    settle(&given_cluster(), &mut observed);
    let late = noon() + SignedDuration::from_hours(3000);
    let alone = cluster(&format!("{SMALL}rotate: {{renewCertificateAuthorities: a}}\n"));
    let last = settle_at(late, &alone, &mut observed);
    let (reason, message) = condition(&alone, &observed, &last, "RotationsCompleted");
    assert_eq!(reason, "WaitingToStart", "{message}");
    assert_eq!(text(&observed, "demo-ca", "tls.crt"), certificate);
    assert_ne!(text(&observed, "demo-proxy", "tls.crt"), text(&observed, "corp-proxy", "tls.crt"));
}

#[test]
fn an_authority_that_has_ended_is_renewed_at_once_and_all_that_ended_with_it() {
    let (_, mut observed) = settled(SMALL);
    let late = noon() + SignedDuration::from_hours(24 * 4000);
    let before = observed.secrets.clone();
    let own = cluster(SMALL);
    assert!(settle_at(late, &own, &mut observed).steps.is_empty());
    assert_eq!(observed.secrets["demo-cp1-pki"], before["demo-cp1-pki"], "nothing can be issued from it");
    let asked = cluster(&format!("{SMALL}rotate: {{renewCertificateAuthorities: late}}\n"));
    let last = settle_at(late, &asked, &mut observed);
    assert!(last.blockers.is_empty() && last.steps.is_empty(), "{:?}", last.blockers);
    for name in ["demo-ca", "demo-etcd", "demo-proxy"] {
        let facts = first_certificate(name, &text(&observed, name, "tls.crt")).unwrap();
        let old = String::from_utf8(before[name].data.as_ref().unwrap()["tls.crt"].0.clone()).unwrap();
        let old = first_certificate(name, &old).unwrap();
        assert!(facts.is_renewal_of(&old) && facts.not_after > late && old.not_after < late, "{name}");
    }
    let status = status::report(&asked, &observed, &[], None, late);
    assert!(status.certificates.iter().all(|certificate| certificate.not_after.0 > late));
    let valid = condition_of(&status.conditions, "CertificatesValid").unwrap();
    assert_eq!(valid.reason, "Valid", "{}", valid.message);
}

#[test]
fn a_renewed_certificate_in_the_users_secret_is_taken_up_and_one_of_another_name_is_not() {
    let cluster = given_cluster();
    let mut observed = given();
    settle(&cluster, &mut observed);
    let key = text(&observed, "corp-ca", "tls.key");
    let old = Authority::load("corp", &text(&observed, "corp-ca", "tls.crt"), &key).unwrap();
    let late = noon() + SignedDuration::from_hours(2401);
    let renewed = keyplane_issuance::x509::renew_authority(&old, late, late + SignedDuration::from_hours(999)).unwrap();
    give(&mut observed, "corp-ca", &pair(&renewed));
    // It has ended, so that nothing is waited for.
    let last = settle_at(late, &cluster, &mut observed);
    assert!(last.blockers.is_empty() && last.steps.is_empty(), "{:?}", last.blockers);
    assert_eq!(text(&observed, "demo-ca", "tls.crt"), renewed.certificate_pem());
    let root = mint("Root", noon());
    let renamed = keyplane_issuance::x509::cross_sign(&renewed, &root, noon()).unwrap().unwrap();
    give(&mut observed, "corp-ca", &[("tls.crt", &renamed), ("tls.key", &key)]);
    let next = plan(&cluster, &observed, noon());
    // The same name and key below another authority: that is the same one for all that it has signed.
    let (reason, message) = condition(&cluster, &observed, &next, "CertificateAuthoritiesInSync");
    assert_eq!(reason, "WaitingToStart", "{message}");
    assert!(message.contains("gets the certificate of Secret corp-ca"), "{message}");
}

#[test]
fn an_authority_that_was_revoked_is_not_taken_up_again() {
    let cluster = given_cluster();
    let mut observed = given();
    settle(&cluster, &mut observed);
    let gone = first_certificate("corp", &text(&observed, "corp-ca", "tls.crt")).unwrap();
    let (_, other) = settled(SMALL);
    let mut secret = other.secrets["demo-ca"].clone();
    secret.annotations_mut().insert("keyplane.io/revoked-cas".to_owned(), gone.fingerprint());
    observed.secrets.insert("demo-ca".to_owned(), secret);
    let (reason, message) = condition(&cluster, &observed, &Plan::default(), "CertificateAuthoritiesInSync");
    assert_eq!(reason, "SecretUnusable");
    assert!(message.contains("was revoked: give another one"), "{message}");
}
