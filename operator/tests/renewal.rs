//! Renewal and rotation of certificates, and their keys: the plan, executed in memory.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{SMALL, cluster, cluster_with_policy, execute, noon, settle, settle_at, settled, text};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_core::certificate_authorities::ClusterCas;
use keyplane_core::kubeconfig::embedded_credential;
use keyplane_core::model::Cluster;
use keyplane_core::observed::Observed;
use keyplane_core::plan::{Step, plan};
use keyplane_core::status;
use keyplane_crds::condition_of;

/// The Secrets without leaf certificates.
const SECRETS_WITHOUT_LEAVES: [&str; 4] = ["demo-ca", "demo-etcd", "demo-proxy", "demo-sa"];

/// The time that many days after noon.
fn after(days: i64) -> Timestamp {
    noon() + SignedDuration::from_hours(24 * days)
}

/// The certificate and key of every leaf, by Secret and key.
fn pairs(observed: &Observed) -> BTreeMap<String, (String, String)> {
    let mut pairs = BTreeMap::new();
    for (name, secret) in observed.secrets.iter().filter(|(name, _)| !SECRETS_WITHOUT_LEAVES.contains(&name.as_str())) {
        for key in secret.data.iter().flatten().map(|(key, _)| key) {
            let value = text(observed, name, key);
            if let Some(stem) = key.strip_suffix(".crt").filter(|stem| !stem.ends_with("ca")) {
                let pair = (value, text(observed, name, &format!("{stem}.key")));
                pairs.insert(format!("{name}/{stem}"), pair);
            } else if let Some(pair) = embedded_credential(&value) {
                pairs.insert(format!("{name}/{key}"), pair);
            }
        }
    }
    pairs
}

/// The leaves whose certificate differs, and those whose key differs.
fn changed(before: &Observed, after: &Observed) -> (BTreeSet<String>, BTreeSet<String>) {
    let (before, after) = (pairs(before), pairs(after));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let certificates = before.iter().filter(|(name, pair)| pair.0 != after[*name].0).map(|(name, _)| name.clone());
    let keys = before.iter().filter(|(name, pair)| pair.1 != after[*name].1).map(|(name, _)| name.clone());
    (certificates.collect(), keys.collect())
}

/// A copy of the observed state.
fn copy(observed: &Observed) -> Observed {
    Observed { secrets: observed.secrets.clone(), config_maps: observed.config_maps.clone(), ..Observed::default() }
}

/// The descriptions of the drafts in a plan.
fn descriptions(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Vec<String> {
    let steps = plan(cluster, observed, now).steps;
    steps.iter().filter_map(|step| if let Step::Secret(draft) = step { Some(draft.describe()) } else { None }).collect()
}

fn ends(cluster: &Cluster, observed: &Observed) -> BTreeMap<String, Timestamp> {
    let cas = ClusterCas::load(cluster, observed).unwrap();
    let rows = status::certificates(cluster, observed, &cas);
    rows.into_iter().map(|row| (row.name, row.not_after.0)).collect()
}

#[test]
fn renews_due_certificates_with_the_same_key_only() {
    let policy = "{authority: {keyAlgorithm: ECDSA-P256}, leaf: {keyAlgorithm: ECDSA-P256},
        overrides: [{certificate: apiserver, validity: 2400h}]}";
    let cluster = cluster_with_policy(SMALL, policy);
    let mut observed = Observed::default();
    settle(&cluster, &mut observed);
    let before = copy(&observed);
    // Seventy of a hundred days, or up to three days earlier; the others are valid for a year.
    assert_eq!(descriptions(&cluster, &observed, after(66)), Vec::<String>::new());
    let now = after(71);
    let expected = "wrote Secret demo-cp1-pki for node cp1: issued apiserver (RenewalDue)";
    assert_eq!(descriptions(&cluster, &observed, now), [expected]);
    settle_at(now, &cluster, &mut observed);
    let only = BTreeSet::from(["demo-cp1-pki/apiserver".to_owned()]);
    assert_eq!(changed(&before, &observed), (only, BTreeSet::new()));
    assert_eq!(ends(&cluster, &observed)["apiserver"], now + SignedDuration::from_hours(2400));
}

#[test]
fn renews_all_leaves_every_year_below_the_same_cas() {
    let (cluster, mut observed) = settled(SMALL);
    let (first, mut renewals) = (copy(&observed), 0);
    for now in (0..110).map(|month| after(30 * month)) {
        let before = copy(&observed);
        assert!(settle_at(now, &cluster, &mut observed).blockers.is_empty());
        renewals += usize::from(!changed(&before, &observed).0.is_empty());
        assert!(ends(&cluster, &observed).values().all(|end| *end > now), "{now}");
    }
    for kept in SECRETS_WITHOUT_LEAVES {
        assert_eq!(observed.secrets[kept].data, first.secrets[kept].data, "{kept}");
    }
    assert!(renewals > 10, "{renewals}");
    assert!(changed(&first, &observed).1.is_empty(), "a renewal by the clock keeps keys");
}

#[test]
fn leaf_limited_by_its_ca_is_not_renewed_repeatedly() {
    let (cluster, mut observed) = settled(SMALL);
    // The CAs are valid for ten years, and each later certificate expires with them.
    settle_at(after(3500), &cluster, &mut observed);
    for days in [3600, 3640, 3649] {
        assert_eq!(descriptions(&cluster, &observed, after(days)), Vec::<String>::new(), "after {days} days");
    }
}

#[test]
fn renewal_waits_for_the_window_until_it_is_urgent() {
    // noon() is a Monday, and so is every day that is a multiple of seven later.
    let policy = "{authority: {keyAlgorithm: ECDSA-P256}, leaf: {keyAlgorithm: ECDSA-P256},
        maintenanceWindow: {days: [Sat], start: '10:00', duration: 4h}}";
    let cluster = cluster_with_policy(SMALL, policy);
    let mut observed = Observed::default();
    settle(&cluster, &mut observed);
    let (monday, saturday) = (after(259), after(264));
    assert_eq!(descriptions(&cluster, &observed, monday), Vec::<String>::new());
    let report = status::report(&cluster, &observed, &[], None, monday);
    let valid = condition_of(&report.conditions, "CertificatesValid").unwrap();
    assert_eq!((valid.status.as_str(), valid.reason.as_str()), ("True", "RenewalWaiting"));
    assert!(valid.message.contains("2027-08-14T10:00:00Z"), "{}", valid.message);
    assert_eq!(descriptions(&cluster, &observed, saturday).len(), 2);
    // Once a third of the 110 days is left, the renewal does not wait.
    assert_eq!(descriptions(&cluster, &observed, after(7 * 46)), Vec::<String>::new());
    assert_eq!(descriptions(&cluster, &observed, after(7 * 48)).len(), 2);
}

#[test]
fn new_key_algorithm_reissues_leaves_but_no_ca() {
    let (_, mut observed) = settled(SMALL);
    let before = copy(&observed);
    let other = cluster_with_policy(SMALL, "{authority: {keyAlgorithm: ECDSA-P384}, leaf: {keyAlgorithm: ECDSA-P384}}");
    assert!(descriptions(&other, &observed, noon())[0].contains("apiserver (KeyAlgorithmChanged)"));
    settle(&other, &mut observed);
    let all: BTreeSet<_> = pairs(&observed).into_keys().collect();
    assert_eq!(changed(&before, &observed), (all.clone(), all));
    for kept in SECRETS_WITHOUT_LEAVES {
        assert_eq!(observed.secrets[kept].data, before.secrets[kept].data, "{kept}");
    }
}

#[test]
fn request_rotates_every_key_once_despite_a_crash() {
    let spec = format!("{SMALL}users: [{{name: jane}}]\n");
    let requested = cluster(&format!("{spec}rotate: {{certificates: spring}}\n"));
    let (_, settled) = settled(&spec);
    let mut left = vec![];
    for crash in 0..3 {
        let mut observed = copy(&settled);
        for step in plan(&requested, &observed, noon()).steps.into_iter().take(crash) {
            execute(step, &requested, &mut observed);
        }
        let half = copy(&observed);
        settle(&requested, &mut observed);
        let all: BTreeSet<_> = pairs(&observed).into_keys().collect();
        assert!(all.contains("demo-user-jane-kubeconfig/value"));
        assert_eq!(changed(&settled, &observed), (all.clone(), all));
        left.push(changed(&half, &observed).1.len());
        assert_eq!(descriptions(&requested, &observed, noon()), Vec::<String>::new());
        // The user may remove the request and make another one.
        assert_eq!(descriptions(&cluster(&spec), &observed, noon()), Vec::<String>::new());
        let by_annotation = BTreeMap::from([("keyplane.io/rotate-certificates".to_owned(), "now".to_owned())]);
        let requested_again = cluster(&spec).with_annotations(&by_annotation);
        assert_eq!(descriptions(&requested_again, &observed, noon()).len(), 3);
    }
    // Steps before the crash are not repeated.
    assert!(left[0] > left[1] && left[1] > left[2], "{left:?}");
}

#[test]
fn new_cluster_fulfils_its_initial_request() {
    let (cluster, observed) = settled(&format!("{SMALL}rotate: {{certificates: spring}}\n"));
    assert_eq!(descriptions(&cluster, &observed, noon()), Vec::<String>::new());
}
