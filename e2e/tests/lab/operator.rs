//! Keyplane against the real API server, without machines: admission, crashes, replicas, and what it leaves alone.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keyplane_e2e::installation::{FIRST_REPLICA, Installation, PATIENCE, cluster_spec, install_kinds};
use keyplane_e2e::{Kubectl, Lab, Management, Operator, eventually};
use serde_json::{Value, json};

/// UID and data of the cluster's Secrets, by name.
fn keys(admin: &Kubectl, cluster: &str) -> Result<BTreeMap<String, (String, Value)>> {
    let secrets = admin.json(&["get", "secrets", "-l", &format!("keyplane.io/cluster={cluster}")])?;
    let items = secrets["items"].as_array().context("no list")?.iter();
    Ok(items
        .map(|secret| {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let metadata = &secret["metadata"];
            (word(&metadata["name"]), (word(&metadata["uid"]), secret["data"].clone()))
        })
        .collect())
}

const ALL_SECRETS: [&str; 6] = ["ca", "cp1-pki", "etcd", "kubeconfig", "proxy", "sa"];

/// A check of an operator that runs already.
type Check = fn(&Lab, &mut Installation) -> Result<()>;

/// Checks that need no more than an operator in a management cluster, and share one. The last one ends both.
pub(crate) fn an_operator_without_machines_does_what_it_should_and_nothing_else() -> Result<()> {
    let began = Instant::now();
    let lab = Lab::start()?;
    let mut installation = Installation::start(&lab)?;
    let checks: [(&str, Check); 5] = [
        ("what belongs to others, and what is unchanged", what_belongs_to_others_and_what_is_unchanged_is_left_alone),
        ("edits by hand", a_hand_edited_config_map_is_put_right_and_a_lost_authority_is_not_made_anew),
        ("deletion", keys_outlive_their_cluster_spec_unless_a_person_confirms_their_end),
        ("poisoned objects", a_poisoned_object_does_not_stop_the_others_and_a_paused_one_is_left_alone),
        ("replicas", one_of_two_replicas_works_and_the_other_takes_over_at_once_when_it_is_asked_to_end),
    ];
    for (name, check) in checks {
        check(&lab, &mut installation).context(name)?;
        eprintln!("{:6.1} s  {name}: as it should be", began.elapsed().as_secs_f32());
    }
    Ok(())
}

pub(crate) fn killed_at_any_point_of_the_first_reconciliation_it_ends_with_one_set_of_keys() -> Result<()> {
    const RUNS: u64 = 30;
    let lab = Lab::start()?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.management.admin().clone();
    let mut cut_short = 0;
    for run in 0..RUNS {
        let name = format!("crash-{run}");
        let mut seen = BTreeMap::new();
        admin.apply(&cluster_spec(&name, "192.0.2.1").to_string())?;
        // Killed a little later each time, and then again while it picks up what it left. The whole of the first
        // reconciliation takes a second or two.
        for delay in [run * 60, (RUNS - run) * 40 + 150] {
            sleep(Duration::from_millis(delay));
            installation.operator.kill();
            let now = keys(&admin, &name)?;
            cut_short += usize::from(now.len() < ALL_SECRETS.len());
            for (secret, content) in &now {
                let before = seen.insert(secret.clone(), content.clone());
                ensure!(before.is_none_or(|before| before == *content), "{secret} was made twice");
            }
            // The same name: the Lease is its own at once.
            installation.operator = Operator::start(&lab, &installation.user, FIRST_REPLICA)?;
        }
        installation.wait_for(&name, "Rendered")?;
        let last = keys(&admin, &name)?;
        ensure!(last.keys().eq(ALL_SECRETS.map(|suffix| format!("{name}-{suffix}")).iter()), "{:?}", last.keys());
        for (secret, content) in seen {
            ensure!(last.get(&secret) == Some(&content), "{secret} is not what it was before the crash");
        }
        for copy in ["ca.crt", "ca.key"] {
            let of = |secret: &str, key: &str| last[&format!("{name}-{secret}")].1[key].clone();
            let authority = of("ca", if copy == "ca.crt" { "tls.crt" } else { "tls.key" });
            ensure!(of("cp1-pki", copy) == authority, "{copy} of the node is not the authority's");
        }
        admin.run(&["delete", "clusterspec", &name])?;
    }
    eprintln!("{cut_short} of {} kills came before everything was written", RUNS * 2);
    ensure!(cut_short >= 10, "the kills came too late to prove anything");
    Ok(())
}

fn one_of_two_replicas_works_and_the_other_takes_over_at_once_when_it_is_asked_to_end(
    lab: &Lab,
    installation: &mut Installation,
) -> Result<()> {
    let admin = installation.management.admin().clone();
    admin.apply(&cluster_spec("first", "192.0.2.1").to_string())?;
    installation.wait_for("first", "Rendered")?;
    let holder = || -> Result<String> {
        let lease = admin.json(&["get", "lease", "keyplane"])?;
        Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    };
    ensure!(holder()? == FIRST_REPLICA);
    let mut second = Operator::start(lab, &installation.user, "keyplane-1")?;
    eventually("standby that is ready", PATIENCE, || {
        let text = second.get("/readyz")?;
        ensure!(text.contains("another replica leads"), "{text}");
        Ok(())
    })?;
    ensure!(installation.operator.get("/readyz")?.contains("leading"));
    ensure!(second.get("/livez")?.contains("ok"));
    ensure!(installation.operator.get("/metrics")?.contains("keyplane_leading 1"));
    ensure!(second.get("/metrics")?.contains("keyplane_leading 0"));
    ensure!(holder()? == FIRST_REPLICA);

    installation.operator.stop()?;
    ensure!(holder()? != FIRST_REPLICA, "the Lease was not released");
    admin.apply(&cluster_spec("second", "192.0.2.2").to_string())?;
    installation.operator = second;
    installation.wait_for("second", "Rendered")?;
    ensure!(holder()? == "keyplane-1");
    second = Operator::start(lab, &installation.user, FIRST_REPLICA)?;

    // A crash releases nothing: the other one waits until the Lease has run out, and then works.
    installation.operator.kill();
    installation.operator = second;
    admin.apply(&cluster_spec("third", "192.0.2.3").to_string())?;
    installation.wait_for("third", "Rendered")?;
    ensure!(holder()? == FIRST_REPLICA);

    // A replica that can't renew its Lease ends by itself, before anybody else could take it.
    installation.management.kill_api_server();
    eventually("end of the replica that has lost its Lease", PATIENCE, || {
        ensure!(!installation.operator.is_running());
        Ok(())
    })?;
    let log = std::fs::read_to_string(installation.operator.log())?;
    ensure!(log.contains("lost the Lease"), "{log}");
    Ok(())
}

pub(crate) fn an_operator_without_its_kinds_says_so_and_begins_when_they_come() -> Result<()> {
    let lab = Lab::start()?;
    let management = Management::start(&lab)?;
    let user = management.add_keyplane("keyplane")?;
    let mut operator = Operator::start(&lab, &user, FIRST_REPLICA)?;
    eventually("word about the missing kinds", PATIENCE, || {
        operator.check_running()?;
        ensure!(std::fs::read_to_string(operator.log())?.contains("keyplane crds | kubectl apply -f -"));
        Ok(())
    })?;
    ensure!(operator.get("/readyz").is_err(), "ready without its kinds");
    install_kinds(&management)?;
    eventually("readiness", PATIENCE, || operator.get("/readyz"))?;
    management.kubectl_apply(&cluster_spec("late", "192.0.2.1").to_string())?;
    eventually("work", PATIENCE, || management.admin().check_condition(&["clusterspec", "late"], "Rendered"))?;
    Ok(())
}

fn what_belongs_to_others_and_what_is_unchanged_is_left_alone(
    _lab: &Lab,
    installation: &mut Installation,
) -> Result<()> {
    let admin = installation.management.admin().clone();
    // Somebody else's Secret and ConfigMap bear names that Keyplane would write.
    admin.run(&["create", "secret", "generic", "taken-etcd", "--from-literal=mine=yes"])?;
    admin.run(&["create", "configmap", "half-cp1-config", "--from-literal=mine=yes"])?;
    for (name, address) in [("taken", "192.0.2.1"), ("half", "192.0.2.2"), ("good", "192.0.2.3")] {
        admin.apply(&cluster_spec(name, address).to_string())?;
    }
    installation.wait_for("good", "Rendered")?;
    for (name, object) in [("taken", "taken-etcd"), ("half", "half-cp1-config")] {
        eventually("condition that names the foreign object", PATIENCE, || {
            let told = admin.complaint(&["clusterspec", name], "Rendered")?;
            ensure!(told.contains("ForeignObject") && told.contains(object), "{told}");
            Ok(())
        })?;
        admin.check_condition(&["clusterspec", name], "Stalled")?;
    }
    ensure!(admin.json(&["get", "secret", "taken-etcd"])?["data"] == json!({"mine": "eWVz"}));
    ensure!(admin.json(&["get", "configmap", "half-cp1-config"])?["data"] == json!({"mine": "yes"}));

    // Nothing changes: nothing is written. The Lease is renewed all the time and does not count.
    let requests = || -> Result<(usize, usize)> {
        let all = installation.management.requests()?;
        let ours = || all.iter().filter(|request| request.user == "keyplane" && request.resource != "leases");
        Ok((
            ours().filter(|request| request.is_write()).count(),
            ours().filter(|request| request.verb == "list").count(),
        ))
    };
    let quiet = eventually("quiet operator", PATIENCE, || {
        let before = requests()?;
        sleep(Duration::from_secs(8));
        let after = requests()?;
        ensure!(before == after, "writes and lists went from {before:?} to {after:?}");
        Ok(after)
    })?;
    // An annotation is a change that means nothing: all three are reconciled, by GETs alone.
    let gets = || -> Result<usize> {
        let all = installation.management.requests()?;
        Ok(all.iter().filter(|request| request.user == "keyplane" && request.verb == "get").count())
    };
    let before = gets()?;
    admin.run(&["annotate", "clusterspec", "--all", "note=look-again"])?;
    sleep(Duration::from_secs(8));
    ensure!(gets()? > before + 10, "nothing was reconciled");
    ensure!(requests()? == quiet, "writes and lists went from {quiet:?} to {:?}", requests()?);
    Ok(())
}

fn a_hand_edited_config_map_is_put_right_and_a_lost_authority_is_not_made_anew(
    lab: &Lab,
    installation: &mut Installation,
) -> Result<()> {
    let admin = installation.management.admin().clone();
    admin.apply(&cluster_spec("demo", "192.0.2.1").to_string())?;
    installation.wait_for("demo", "Rendered")?;

    let manifest =
        || Ok::<_, anyhow::Error>(admin.json(&["get", "configmap", "demo-cp1-config"])?["data"]["etcd.yaml"].clone());
    let right = manifest()?;
    admin.run(&[
        "patch",
        "configmap",
        "demo-cp1-config",
        "--type=merge",
        "-p",
        r#"{"data":{"etcd.yaml":"broken"}}"#,
    ])?;
    eventually("ConfigMap put right", PATIENCE, || {
        ensure!(manifest()? == right);
        Ok(())
    })?;
    // A key too many is put right as well; a label of somebody else's stays.
    admin.run(&[
        "patch",
        "configmap",
        "demo-cp1-config",
        "--type=merge",
        "-p",
        r#"{"data":{"more.yaml":"x"},"metadata":{"labels":{"theirs":"yes"}}}"#,
    ])?;
    eventually("key taken out again", PATIENCE, || {
        let found = admin.json(&["get", "configmap", "demo-cp1-config"])?;
        ensure!(found["data"].get("more.yaml").is_none() && found["metadata"]["labels"]["theirs"] == "yes", "{found}");
        Ok(())
    })?;
    admin.run(&["delete", "configmap", "demo-cp1-config"])?;
    eventually("ConfigMap written again", PATIENCE, || {
        ensure!(manifest()? == right);
        Ok(())
    })?;

    for (secret, key_in_node, public_in_node) in
        [("demo-ca", "ca.key", "ca.crt"), ("demo-etcd", "etcd-ca.key", "etcd-ca.crt"), ("demo-sa", "sa.key", "sa.pub")]
    {
        let before = keys(&admin, "demo")?;
        admin.run(&["delete", "secret", secret])?;
        eventually("condition that says what to do", PATIENCE, || {
            let told = admin.complaint(&["clusterspec", "demo"], "Rendered")?;
            ensure!(told.contains("CAMissing") && told.contains(secret), "{told}");
            ensure!(told.contains(key_in_node) && told.contains("backup"), "{told}");
            Ok(())
        })?;
        // Also after a restart, and also where the status is gone, as after a restore from a backup.
        installation.operator.stop()?;
        admin.run(&[
            "patch",
            "clusterspec",
            "demo",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"certificates":null}}"#,
        ])?;
        installation.operator = Operator::start(lab, &installation.user, FIRST_REPLICA)?;
        sleep(Duration::from_secs(5));
        ensure!(admin.run(&["get", "secret", secret]).is_err(), "{secret} was made anew");

        // The cure that the message names: the copy in the node's Secret.
        let node = &before["demo-cp1-pki"].1;
        let restored = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "cluster.x-k8s.io/secret",
            "metadata": {"name": secret, "labels": {
                "app.kubernetes.io/managed-by": "keyplane", "keyplane.io/cluster": "demo",
                "cluster.x-k8s.io/cluster-name": "demo",
            }},
            "data": {"tls.crt": node[public_in_node], "tls.key": node[key_in_node]},
        });
        admin.apply(&restored.to_string())?;
        installation.wait_for("demo", "Rendered")?;
        let after = keys(&admin, "demo")?;
        ensure!(after[secret].1 == before[secret].1, "{secret} is not what it was");
        ensure!(after["demo-cp1-pki"] == before["demo-cp1-pki"], "the node's keys have changed");
    }

    // Another authority in the place of the old one is seen, and nothing is issued from it.
    admin.apply(&cluster_spec("other", "192.0.2.2").to_string())?;
    installation.wait_for("other", "Rendered")?;
    let others = keys(&admin, "other")?["other-ca"].1.clone();
    let node_before = keys(&admin, "demo")?["demo-cp1-pki"].clone();
    admin.run(&["patch", "secret", "demo-ca", "--type=merge", "-p", &json!({"data": others}).to_string()])?;
    eventually("condition that tells of another authority", PATIENCE, || {
        let told = admin.complaint(&["clusterspec", "demo"], "Rendered")?;
        ensure!(told.contains("CAChanged"), "{told}");
        Ok(())
    })?;
    ensure!(keys(&admin, "demo")?["demo-cp1-pki"] == node_before);
    Ok(())
}

fn keys_outlive_their_cluster_spec_unless_a_person_confirms_their_end(
    _lab: &Lab,
    installation: &mut Installation,
) -> Result<()> {
    let admin = installation.management.admin().clone();
    admin.apply(&cluster_spec("kept", "192.0.2.1").to_string())?;
    installation.wait_for("kept", "Rendered")?;
    let before = keys(&admin, "kept")?;
    admin.run(&["delete", "clusterspec", "kept", "--timeout=30s"])?;
    sleep(Duration::from_secs(3));
    ensure!(keys(&admin, "kept")? == before, "Retain has lost keys");
    eventually("end of the work for a ClusterSpec that is gone", PATIENCE, || {
        let text = installation.operator.get("/metrics")?;
        ensure!(!text.contains("cluster=\"kept\""), "{text}");
        Ok(())
    })?;

    let mut spec = cluster_spec("kept", "192.0.2.1");
    spec["spec"]["deletionPolicy"] = "Delete".into();
    admin.apply(&spec.to_string())?;
    installation.wait_for("kept", "Rendered")?;
    ensure!(keys(&admin, "kept")? == before, "a ClusterSpec that comes back takes its keys up again");
    eventually("finalizer", PATIENCE, || {
        let finalizers = admin.json(&["get", "clusterspec", "kept"])?["metadata"]["finalizers"].clone();
        ensure!(finalizers == json!(["keyplane.io/clusterspec-cleanup"]), "{finalizers}");
        Ok(())
    })?;
    admin.run(&["delete", "clusterspec", "kept", "--wait=false"])?;
    eventually("condition that asks for confirmation", PATIENCE, || {
        let told = admin.complaint(&["clusterspec", "kept"], "Ready")?;
        ensure!(told.contains("DeletionNotConfirmed") && told.contains("keyplane.io/confirm-deletion=kept"), "{told}");
        Ok(())
    })?;
    ensure!(keys(&admin, "kept")? == before);
    admin.run(&["annotate", "clusterspec", "kept", "keyplane.io/confirm-deletion=kept"])?;
    eventually("end of the keys", PATIENCE, || {
        ensure!(keys(&admin, "kept")?.is_empty());
        ensure!(admin.run(&["get", "clusterspec", "kept"]).is_err());
        Ok(())
    })?;
    Ok(())
}

fn a_poisoned_object_does_not_stop_the_others_and_a_paused_one_is_left_alone(
    lab: &Lab,
    installation: &mut Installation,
) -> Result<()> {
    let admin = installation.management.admin().clone();
    // As if an older or newer version of the kinds had let them in: the schema's checks are switched off for a moment.
    let kinds = ["clusterspecs.keyplane.io", "nodepools.keyplane.io", "certificatepolicies.keyplane.io"];
    for kind in kinds {
        let schema = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema",
            "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]);
        admin.run(&["patch", "crd", kind, "--type=json", "-p", &schema.to_string()])?;
    }
    eventually("poisoned objects", PATIENCE, || {
        for kind in ["ClusterSpec", "NodePool", "CertificatePolicy"] {
            let poison = json!({"apiVersion": "keyplane.io/v1alpha1", "kind": kind,
                "metadata": {"name": "poison", "namespace": "default"}, "spec": {"controlPlane": 7, "leaf": [], "clusterRef": 1}});
            admin.apply(&poison.to_string())?;
        }
        let mut overlapping = cluster_spec("overlapping", "192.0.2.7");
        overlapping["spec"]["network"] =
            json!({"serviceCIDRs": ["10.96.0.0/12"], "podCIDRs": ["10.96.0.0/16"], "dnsDomain": "x"});
        admin.apply(&overlapping.to_string())
    })?;
    // The one that can't be read is told so once, and not again and again.
    eventually("word on the one that can't be read", PATIENCE, || {
        let told = admin.complaint(&["clusterspec", "poison"], "Ready")?;
        ensure!(told.contains("Unreadable"), "{told}");
        Ok(())
    })?;
    sleep(Duration::from_secs(5));
    let writes = installation.management.writes_of("keyplane")?;
    let told = writes.iter().filter(|write| write.name == "poison" && write.resource == "clusterspecs/status").count();
    ensure!(told <= 2, "the status of the poisoned ClusterSpec was written {told} times");
    install_kinds(&installation.management)?;
    admin.apply(&cluster_spec("sound", "192.0.2.1").to_string())?;
    installation.wait_for("sound", "Rendered")?;
    // Also for an operator that finds them when it starts.
    installation.operator.stop()?;
    installation.operator = Operator::start(lab, &installation.user, FIRST_REPLICA)?;
    admin.apply(&cluster_spec("better", "192.0.2.2").to_string())?;
    installation.wait_for("better", "Rendered")?;
    eventually("condition on the one that makes no sense", PATIENCE, || {
        let told = admin.complaint(&["clusterspec", "overlapping"], "Ready")?;
        ensure!(told.contains("InvalidSpec") && told.contains("overlap"), "{told}");
        Ok(())
    })?;

    let mut paused = cluster_spec("paused", "192.0.2.3");
    paused["spec"]["paused"] = true.into();
    admin.apply(&paused.to_string())?;
    let mut without_policy = cluster_spec("nopolicy", "192.0.2.4");
    without_policy["spec"]["certificatePolicyRef"] = json!({"name": "later"});
    admin.apply(&without_policy.to_string())?;
    eventually("condition that misses the policy", PATIENCE, || {
        let told = admin.complaint(&["clusterspec", "nopolicy"], "Ready")?;
        ensure!(told.contains("CertificatePolicyNotFound"), "{told}");
        Ok(())
    })?;
    admin.apply("{apiVersion: keyplane.io/v1alpha1, kind: CertificatePolicy, metadata: {name: later}, spec: {leaf: {keyAlgorithm: ECDSA-P256}}}")?;
    installation.wait_for("nopolicy", "Rendered")?;
    ensure!(keys(&admin, "paused")?.is_empty(), "a paused ClusterSpec was worked on");
    let told = admin.complaint(&["clusterspec", "paused"], "Reconciling")?;
    ensure!(told.contains("Paused") && told.contains("spec.paused"), "{told}");
    admin.run(&["patch", "clusterspec", "paused", "--type=merge", "-p", r#"{"spec":{"paused":false}}"#])?;
    installation.wait_for("paused", "Rendered")?;
    Ok(())
}
