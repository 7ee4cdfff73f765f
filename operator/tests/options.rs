//! Audit, authentication, Pod Security, users and the proxy: from the spec to the objects.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod common;

use common::{SMALL, cluster, noon, settle, settled, text};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::SignedDuration;
use keyplane_core::certificate_authorities::ClusterCas;
use keyplane_core::kubeconfig::embedded_credential;
use keyplane_core::observed::Observed;
use keyplane_core::pki::{Subject, first_certificate};
use keyplane_core::plan::{Step, plan};
use keyplane_core::status;
use kube::ResourceExt;
use serde_json::Value;

fn with(options: &str) -> String {
    format!("{SMALL}{options}\n")
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn config(observed: &Observed, key: &str) -> Option<String> {
    observed.config_maps["demo-cp1-config"].data.as_ref().unwrap().get(key).cloned()
}

fn subject(observed: &Observed, secret: &str) -> Subject {
    let (certificate, _) = embedded_credential(&text(observed, secret, "value")).unwrap();
    first_certificate(secret, &certificate).unwrap().subject.unwrap()
}

const JANE: &str = "demo-user-jane-kubeconfig";
const ANNOTATION: &str = "keyplane.io/config-checksum";

#[test]
fn user_kubeconfig_certificate_has_every_group() {
    let (cluster, observed) =
        settled(&with("users: [{name: jane, groups: [ops, auditors], validity: 48h}, {name: ci}]"));
    let jane = subject(&observed, JANE);
    assert_eq!(
        (jane.common_name.as_str(), jane.organizations),
        ("jane", vec!["auditors".to_owned(), "ops".to_owned()])
    );
    assert_eq!(subject(&observed, "demo-user-ci-kubeconfig"), Subject::user("ci"));
    let secret = &observed.secrets[JANE];
    assert_eq!(secret.labels()["keyplane.io/user"], "jane");
    assert_eq!(secret.annotations()["keyplane.io/not-after"], "2026-11-25T12:00:00Z");
    let config = yaml(&text(&observed, JANE, "value"));
    assert_eq!(config["clusters"][0]["cluster"]["server"], "https://api.demo.example:6443");
    assert_eq!(config["current-context"], "jane@kubernetes");
    let listed = status::certificates(&cluster, &observed, &ClusterCas::load(&cluster, &observed).unwrap());
    let row = listed.iter().find(|row| row.name == "users/jane").unwrap();
    assert_eq!((row.issuer.as_str(), row.not_after.0), ("ca", noon() + SignedDuration::from_hours(48)));
    assert_eq!(
        listed.iter().find(|row| row.name == "users/ci").unwrap().not_after.0,
        noon() + SignedDuration::from_hours(8760)
    );
    // The certificate is renewed at three tenths of its 48 hours before expiry, like any other, and not before.
    for (hours, steps) in [(0, 0), (31, 0), (34, 1)] {
        let later = plan(&cluster, &observed, noon() + SignedDuration::from_hours(hours));
        assert_eq!((later.steps.len(), later.blockers.len()), (steps, 0), "after {hours} hours: {later:?}");
    }
}

#[test]
fn changed_groups_reissue_but_their_order_does_not() {
    let (_, mut observed) = settled(&with("users: [{name: jane, groups: [ops, auditors]}]"));
    let before = embedded_credential(&text(&observed, JANE, "value")).unwrap();
    let turned = cluster(&with("users: [{name: jane, groups: [auditors, ops]}]"));
    assert!(plan(&turned, &observed, noon()).steps.is_empty());
    settle(&cluster(&with("users: [{name: jane, groups: [auditors]}]")), &mut observed);
    let after = embedded_credential(&text(&observed, JANE, "value")).unwrap();
    assert_eq!(subject(&observed, JANE).organizations, ["auditors"]);
    assert!(before.1 == after.1 && before.0 != after.0, "the same key, another certificate");
}

#[test]
fn deletes_kubeconfigs_of_removed_users_only() {
    let (_, mut observed) = settled(&with("users: [{name: jane}, {name: ci}]"));
    // Not Keyplane's, because it lacks the managed-by label.
    let mut theirs = observed.secrets[JANE].clone();
    theirs.metadata.name = Some("demo-user-bob-kubeconfig".to_owned());
    theirs.labels_mut().insert("keyplane.io/user".to_owned(), "bob".to_owned());
    theirs.labels_mut().remove("app.kubernetes.io/managed-by");
    observed.secrets.insert(theirs.name_any(), theirs);
    // Keyplane's labels, copied by somebody, on a Secret whose name is not that of a user.
    let mut copied = observed.secrets[JANE].clone();
    copied.metadata.name = Some("copy".to_owned());
    observed.secrets.insert(copied.name_any(), copied);
    let less = cluster(&with("users: [{name: ci}]"));
    let next = plan(&less, &observed, noon());
    let [Step::Removal(removal)] = next.steps.as_slice() else { panic!("{next:?}") };
    assert_eq!(removal.name, JANE);
    for word in ["jane", "can't be revoked", "2027-11-23T12:00:00Z", "bindings"] {
        assert!(removal.note.contains(word), "{word} not in {}", removal.note);
    }
    settle(&less, &mut observed);
    let left: Vec<_> = observed.secrets.keys().filter(|name| name.contains("user") || *name == "copy").collect();
    assert_eq!(left, ["copy", "demo-user-bob-kubeconfig", "demo-user-ci-kubeconfig"]);
}

#[test]
fn foreign_secret_of_a_user_is_unchanged_and_reported() {
    let cluster = cluster(&with("users: [{name: jane}]"));
    let mut theirs = Secret::default();
    theirs.metadata.name = Some(JANE.to_owned());
    let mut observed = Observed::default();
    observed.secrets.insert(JANE.to_owned(), theirs.clone());
    let last = settle(&cluster, &mut observed);
    assert_eq!(last.blockers.iter().map(|blocker| blocker.reason).collect::<Vec<_>>(), ["ForeignObject"]);
    assert_eq!(observed.secrets[JANE], theirs);
}

#[test]
fn user_cert_shorter_than_renew_before_falls_back_to_30_percent() {
    let spec = serde_saphyr::from_str(&with("users: [{name: jane, validity: 1h}]")).unwrap();
    let policy = serde_saphyr::from_str(
        "{leaf: {keyAlgorithm: ECDSA-P256, renewBefore: 720h}, authority: {keyAlgorithm: ECDSA-P256}}",
    )
    .unwrap();
    let policy = keyplane_core::model::Policy::parse(&policy).unwrap();
    let cluster = keyplane_core::model::Cluster::parse("demo", "default", &spec, policy).unwrap();
    let mut observed = Observed::default();
    settle(&cluster, &mut observed);
    let listed = status::certificates(&cluster, &observed, &ClusterCas::load(&cluster, &observed).unwrap());
    let row = listed.iter().find(|row| row.name == "users/jane").unwrap();
    assert!(row.renewal_time.0 > noon() && row.renewal_time.0 < row.not_after.0, "{row:?}");
}

#[test]
fn only_people_reach_the_cluster_through_the_proxy() {
    let (_, mut observed) = settled(&with("users: [{name: jane}]"));
    let proxy = |text: String| yaml(&text)["clusters"][0]["cluster"].get("proxy-url").cloned();
    assert_eq!(proxy(text(&observed, JANE, "value")), None);
    let through = cluster(&with("users: [{name: jane}]\naccess: {proxyURL: 'http://bastion.example:3128'}"));
    settle(&through, &mut observed);
    for name in ["demo-kubeconfig", JANE] {
        assert_eq!(proxy(text(&observed, name, "value")), Some("http://bastion.example:3128".into()), "{name}");
    }
    for file in ["admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf", "kubelet.conf"] {
        assert_eq!(proxy(text(&observed, "demo-cp1-pki", file)), None, "{file}");
    }
}

#[test]
fn node_waits_for_the_audit_webhook_kubeconfig() {
    let cluster = cluster(&with("audit: {webhook: {secretRef: {name: siem}}}"));
    let mut observed = Observed::default();
    let waiting = settle(&cluster, &mut observed);
    assert_eq!(waiting.blockers[0].reason, "SecretNotFound");
    assert!(waiting.blockers[0].requires_secret() && waiting.blockers[0].message.contains("siem"));
    assert!(!observed.secrets.contains_key("demo-cp1-pki") && !observed.config_maps.contains_key("demo-cp1-config"));
    let blockers_with = |observed: &mut Observed, content: &str| {
        let data = [("value".to_owned(), ByteString(content.as_bytes().to_vec()))].into();
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.name = Some("siem".to_owned());
        observed.secrets.insert("siem".to_owned(), secret);
        settle(&cluster, observed).blockers
    };
    let reported = blockers_with(&mut observed, "token: S3CRET: x");
    assert_eq!(reported[0].reason, "SecretUnusable");
    assert!(!reported[0].message.contains("S3CRET"), "{}", reported[0].message);
    assert_eq!(blockers_with(&mut observed, "clusters: [{cluster: {server: siem}}]")[0].reason, "SecretUnusable");
    let good = "{clusters: [{name: a, cluster: {server: 'https://siem.example'}}], users: [{user: {token: S3CRET}}]}";
    assert_eq!(blockers_with(&mut observed, good), []);
    assert_eq!(text(&observed, "demo-cp1-pki", "audit-webhook.conf"), good);
    let index = text(&observed, "demo-cp1-pki", "index.json");
    let line = index.lines().find(|line| line.contains("audit-webhook.conf")).unwrap();
    assert!(line.contains("/etc/kubernetes/audit/webhook.conf") && line.contains("0600"), "{line}");
    assert!(
        config(&observed, "kube-apiserver.yaml")
            .unwrap()
            .contains("--audit-webhook-config-file=/etc/kubernetes/audit/webhook.conf")
    );
    assert!(!serde_json::to_string(&observed.config_maps["demo-cp1-config"]).unwrap().contains("S3CRET"));
    let changed = good.replace("S3CRET", "OTHER");
    assert_eq!(blockers_with(&mut observed, &changed), []);
    assert_eq!(text(&observed, "demo-cp1-pki", "audit-webhook.conf"), changed);
}

#[test]
fn only_files_read_at_start_change_the_manifest() {
    let manifest = |options: &str| {
        let (_, observed) = settled(&with(options));
        let manifest = config(&observed, "kube-apiserver.yaml").unwrap();
        let checksum = yaml(&manifest)["metadata"]["annotations"].get(ANNOTATION).cloned();
        (manifest, checksum)
    };
    let jwt = "jwt: [{issuer: {url: 'https://id.example', audiences: [a]}, claimMappings: {username: {expression: claims.sub}}}]";
    let issuer = manifest(&format!("authentication: {{{jwt}}}"));
    assert_eq!(manifest("").1, None);
    assert_eq!(issuer.1, None);
    assert_eq!(manifest("authentication: {}"), issuer);
    let probes = "anonymous: {enabled: true, conditions: [{path: /livez}, {path: /readyz}]}";
    let anonymous = manifest(&format!("authentication: {{{probes}}}"));
    assert!(anonymous.1.is_some());
    assert_eq!(manifest(&format!("authentication: {{{jwt}, {probes}}}")), anonymous);
    let audit = manifest("audit: {}");
    let policy = "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}";
    assert!(audit.1.is_some() && manifest(&format!("audit: {{policy: {policy}}}")).1 != audit.1);
    assert_ne!(manifest("podSecurity: {enforce: baseline}"), manifest("podSecurity: {enforce: restricted}"));
}

#[test]
fn files_read_at_start_are_applied_before_the_manifest() {
    let (_, observed) = settled(&with("audit: {}\nauthentication: {}\npodSecurity: {enforce: baseline}"));
    let index = yaml(&config(&observed, "index.json").unwrap());
    let keys: Vec<_> = index.as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap()).collect();
    let place = |key: &str| keys.iter().position(|other| *other == key).unwrap();
    for file in ["audit-policy.yaml", "authentication-config.yaml", "admission-config.yaml"] {
        assert!(place(file) < place("kube-apiserver.yaml"), "{keys:?}");
    }
}

#[test]
fn kubeadm_config_contains_the_options() {
    let (_, observed) = settled(&with("audit: {}\nauthentication: {}\npodSecurity: {enforce: baseline}"));
    let known = yaml(&config(&observed, "kubeadm-config.yaml").unwrap())["apiServer"].clone();
    let manifest = yaml(&config(&observed, "kube-apiserver.yaml").unwrap());
    let command = manifest["spec"]["containers"][0]["command"].as_array().unwrap();
    let arguments = known["extraArgs"].as_array().unwrap();
    assert_eq!(arguments.len(), 7);
    for argument in arguments {
        let flag = format!("--{}={}", argument["name"].as_str().unwrap(), argument["value"].as_str().unwrap());
        assert!(command.contains(&flag.as_str().into()), "{flag}");
    }
    let volumes = known["extraVolumes"].as_array().unwrap();
    let names: Vec<_> = volumes.iter().map(|volume| volume["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["audit-config", "audit-log", "authentication-config", "admission-config"]);
    for volume in volumes {
        let mounted = manifest["spec"]["volumes"].as_array().unwrap();
        assert!(mounted.iter().any(|mount| mount["hostPath"]["path"] == volume["hostPath"]), "{volume}");
    }
}

#[test]
fn accepts_the_examples_of_the_documentation() {
    let mut shown = 0;
    for block in include_str!("../../docs/options.md").split("```yaml\nspec:\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let options: Vec<_> = block.lines().map(|line| line.strip_prefix("  ").unwrap()).collect();
        cluster(&with(&options.join("\n")));
        shown += 1;
    }
    assert_eq!(shown, 6);
}
