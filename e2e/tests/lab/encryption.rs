//! What is stored in etcd is encrypted, gets another key and is decrypted under a cluster that runs, though Keyplane is
//! killed in the middle of it; etcd is asked itself.

use std::collections::BTreeMap;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyplane_e2e::boot::boot;
use keyplane_e2e::etcdctl::etcdctl;
use keyplane_e2e::installation::{FIRST_REPLICA, Installation, PATIENCE, bootable_cluster_spec};
use keyplane_e2e::kubectl::documents;
use keyplane_e2e::node_files::files;
use keyplane_e2e::operator::Operator;
use keyplane_e2e::{Kubectl, Lab, Machine, eventually, image};
use serde_json::{Value, json};

const CLUSTER: &str = "encrypted";
/// More than are listed at once, so that there are two pages, and enough to be killed in between.
const SECRETS: usize = 600;
/// An API server looks at its file every minute, three times in a change; the objects themselves take half a minute.
const CHANGE: Duration = Duration::from_mins(8);

/// An API server that forgets soon what was there before.
fn object(machine: &Machine) -> Value {
    let argument = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut cluster = bootable_cluster_spec(CLUSTER, &machine.address(), slice::from_ref(machine));
    let arguments = [argument("etcd-compaction-interval", "10s"), argument("request-timeout", "15s")];
    cluster["spec"]["controlPlane"]["apiServer"] = json!({"extraArgs": arguments});
    cluster
}

pub(crate) fn everything_stored_is_encrypted_gets_another_key_and_is_decrypted_under_a_running_cluster() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let lab = Lab::start()?;
    let images = image::all(lab.parts())?;
    let mut machine = lab.machine("cp1")?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    admin.apply(&object(&machine).to_string())?;
    installation.wait_for(CLUSTER, "Rendered")?;
    let target = boot(&lab, &mut installation, CLUSTER, &mut machine, &images, "10.244.0.0/24", &tell)?;
    let secrets = (0..SECRETS).map(|number| {
        let name = format!("kept-{number:03}");
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"number": number.to_string()}})
    });
    target.apply(&documents(&secrets.collect::<Vec<_>>()))?;
    tell(&format!("{SECRETS} Secrets are stored as they are"));

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let owner = scope.spawn(|| carry_what_changes(&admin, &machine, &stop));
        let mut scene =
            Scene { lab: &lab, installation: &mut installation, admin: &admin, machine: &machine, target: &target };
        let result = scene.play(&tell);
        stop.store(true, Ordering::Relaxed);
        let carried = owner.join().map_err(|_| anyhow::anyhow!("the machine's owner has panicked"))?;
        result.and(carried)
    })
}

/// The machine's owner: the Secret's files first.
fn carry_what_changes(admin: &Kubectl, machine: &Machine, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        for (kind, suffix) in [("secret", "pki"), ("configmap", "config")] {
            // The management cluster's API server may be asked by six hundred others.
            let Ok(object) = admin.json(&["get", kind, &format!("{CLUSTER}-cp1-{suffix}")]) else { continue };
            for file in files(&object)?.into_iter().filter(|file| file.path.starts_with("/etc/kubernetes/")) {
                if machine.read_file(&file.path).ok().as_ref() != Some(&file.content) {
                    machine.put_file(&file.path, &file.content, file.mode)?;
                }
            }
        }
        sleep(Duration::from_secs(1));
    }
    Ok(())
}

struct Scene<'a> {
    lab: &'a Lab,
    installation: &'a mut Installation,
    admin: &'a Kubectl,
    machine: &'a Machine,
    target: &'a Kubectl,
}

impl Scene<'_> {
    fn play(&mut self, tell: &dyn Fn(&str)) -> Result<()> {
        self.everything_is_stored_as("secrets", "k8s\0")?;
        self.it_is_turned_on()?;
        tell("Secrets and ConfigMaps from before are encrypted with key-1");
        self.the_key_is_rotated_though_keyplane_is_killed()?;
        tell("everything has key-2, and nothing was restarted or refused");
        self.narrow_rights_are_left()?;
        self.it_is_turned_off()?;
        tell("everything is stored as it is, and the API server runs without a configuration");
        self.nothing_told_has_a_key()
    }

    fn it_is_turned_on(&mut self) -> Result<()> {
        self.patch(&json!({"spec": {"encryptionAtRest": {"resources": ["secrets", "configmaps"]}}}))?;
        self.is_settled("True", "key-1 (secretbox)")?;
        for resource in ["secrets", "configmaps"] {
            self.everything_is_stored_as(resource, "k8s:enc:secretbox:v1:key-1:")?;
        }
        self.target.run(&["create", "secret", "generic", "later", "--from-literal=a=b"])?;
        self.everything_is_stored_as("secrets", "k8s:enc:secretbox:v1:key-1:")?;
        // What nobody asked for is as it was.
        self.everything_is_stored_as("serviceaccounts", "k8s\0")?;
        let events = self.admin.run(&["get", "events"])?;
        for reason in
            ["EncryptionPublish", "EncryptionWrite", "EncryptionReencrypt", "EncryptionDrop", "EncryptionCompleted"]
        {
            ensure!(events.contains(reason), "no Event {reason}: {events}");
        }
        Ok(())
    }

    fn the_key_is_rotated_though_keyplane_is_killed(&mut self) -> Result<()> {
        let before = self.containers()?;
        let (stop, asked, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let target = self.target.clone();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = asked.fetch_add(1, Ordering::Relaxed) % SECRETS;
                    let path = format!("/api/v1/namespaces/default/secrets/kept-{number:03}");
                    if let Err(error) = target.run(&["get", "--raw", &path]) {
                        eprintln!("{error:#}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    sleep(Duration::from_millis(200));
                }
            });
            let result = self.rotate();
            stop.store(true, Ordering::Relaxed);
            result
        })?;
        let (asked, failed) = (asked.into_inner(), failed.into_inner());
        eprintln!("{asked} requests, {failed} failed");
        ensure!(asked > 50 && failed == 0, "{failed} of {asked} requests failed");
        ensure!(self.containers()? == before, "something was restarted");
        Ok(())
    }

    fn rotate(&mut self) -> Result<()> {
        self.admin.run(&["annotate", "clusterspec", CLUSTER, "keyplane.io/rotate-encryption-key=spring"])?;
        for stage in ["Publish", "Write"] {
            self.reaches(stage)?;
            self.kill_keyplane()?;
        }
        self.reaches("Reencrypt")?;
        // In the middle: some have the new key, some the old one.
        let (old, new) = eventually("half of the work", CHANGE, || {
            let keys = self.stored("secrets")?;
            let count = |key: &str| keys.values().filter(|value| value.starts_with(key)).count();
            let (old, new) = (count("k8s:enc:secretbox:v1:key-1:"), count("k8s:enc:secretbox:v1:key-2:"));
            ensure!(new > 20, "{old} old, {new} new");
            Ok((old, new))
        })?;
        self.kill_keyplane()?;
        ensure!(old > 0 && old + new > SECRETS, "it was killed too late to prove anything: {old} old, {new} new");
        self.is_settled("True", "key-2 (secretbox)")?;
        for resource in ["secrets", "configmaps"] {
            self.everything_is_stored_as(resource, "k8s:enc:secretbox:v1:key-2:")?;
        }
        let file = String::from_utf8(self.machine.read_file("/etc/kubernetes/encryption/config.yaml")?)?;
        ensure!(file.contains("key-2") && !file.contains("key-1"), "the former key is on the machine");
        ensure!(!self.admin.secret_text("encrypted-encryption", "retired-key-1")?.is_empty());
        let status = self.admin.json(&["get", "clusterspec", CLUSTER])?["status"].clone();
        let row = status["rotations"].as_array().into_iter().flatten().find(|row| row["name"] == "encryption-key");
        let row = row.context("no row in status.rotations")?;
        ensure!(row["phase"] == "Completed" && row["requested"] == "spring", "{row}");
        Ok(())
    }

    fn narrow_rights_are_left(&self) -> Result<()> {
        eventually("rights to be taken back", PATIENCE, || {
            let role = self.target.json(&["get", "clusterrole", "keyplane:controller"])?["rules"].to_string();
            ensure!(role.contains("/metrics") && !role.contains("\"secrets\""), "{role}");
            Ok(())
        })
    }

    fn it_is_turned_off(&mut self) -> Result<()> {
        self.patch(&json!({"spec": {"encryptionAtRest": null}}))?;
        self.reaches("Publish")?;
        self.reaches("Completed")?;
        for resource in ["secrets", "configmaps"] {
            self.everything_is_stored_as(resource, "k8s\0")?;
        }
        eventually("API server without a configuration", PATIENCE, || {
            let pod = self.target.json(&["get", "pod", "-n", "kube-system", "kube-apiserver-cp1"])?;
            ensure!(!pod["spec"].to_string().contains("encryption-provider-config"), "it still has one");
            self.target.check_condition(&["pod", "-n", "kube-system", "kube-apiserver-cp1"], "Ready")
        })?;
        self.everything_is_stored_as("secrets", "k8s\0")?;
        let number = self.target.secret_text("kept-007", "number")?;
        ensure!(number == "7", "{number}");
        self.installation.wait_for(CLUSTER, "Ready")
    }

    fn nothing_told_has_a_key(&self) -> Result<()> {
        let secret = self.admin.json(&["get", "secret", "encrypted-encryption"])?;
        let keys = secret["data"].as_object().context("no data")?.iter().filter(|(key, _)| key.contains("key-"));
        let keys: Vec<_> = keys
            .filter_map(|(_, value)| String::from_utf8(BASE64_STANDARD.decode(value.as_str()?).ok()?).ok())
            .collect();
        ensure!(keys.len() == 2, "{} keys", keys.len());
        let told = [
            std::fs::read_to_string(self.installation.operator.log())?,
            self.admin.run(&["get", "events", "-o", "json"])?,
            self.admin.run(&["get", "clusterspecs,configmaps", "-o", "json"])?,
        ];
        for key in &keys {
            ensure!(told.iter().all(|text| !text.contains(key)), "a key was told");
        }
        Ok(())
    }

    fn patch(&self, patch: &Value) -> Result<()> {
        self.admin.run(&["patch", "clusterspec", CLUSTER, "--type=merge", "-p", &patch.to_string()])?;
        Ok(())
    }

    fn kill_keyplane(&mut self) -> Result<()> {
        self.installation.operator.kill();
        self.installation.operator = Operator::start(self.lab, &self.installation.user, FIRST_REPLICA)?;
        Ok(())
    }

    fn reaches(&mut self, stage: &str) -> Result<()> {
        let told = || {
            self.admin.run(&["get", "clusterspec", CLUSTER, "-o", "jsonpath={.status.rotations}{.status.conditions}"])
        };
        let result = eventually(&format!("stage {stage}"), CHANGE, || {
            self.installation.operator.check_running()?;
            let secret = self.admin.json(&["get", "secret", "encrypted-encryption"])?;
            let now = &secret["metadata"]["annotations"]["keyplane.io/rotation-stage"];
            ensure!(now == stage, "it is in {now}");
            Ok(())
        });
        result.with_context(|| told().unwrap_or_default())
    }

    fn is_settled(&mut self, status: &str, words: &str) -> Result<()> {
        let result = eventually(&format!("condition EncryptedAtRest with {words}"), CHANGE, || {
            self.installation.operator.check_running()?;
            let object = self.admin.json(&["get", "clusterspec", CLUSTER])?;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let Some(condition) = conditions.iter().find(|condition| condition["type"] == "EncryptedAtRest") else {
                bail!("no condition")
            };
            ensure!(condition["status"] == status, "{condition}");
            ensure!(condition["message"].as_str().is_some_and(|message| message.contains(words)), "{condition}");
            Ok(())
        });
        result.with_context(|| format!("the operator's log is {}", self.installation.operator.log().display()))
    }

    /// The beginning of what etcd has of each object of a resource, by key.
    fn stored(&self, resource: &str) -> Result<BTreeMap<String, String>> {
        let said = etcdctl(self.machine, &["get", &format!("/registry/{resource}/"), "--prefix", "--write-out=json"])?;
        let said: Value = serde_json::from_str(&said)?;
        let decode =
            |value: &Value| Ok::<_, anyhow::Error>(BASE64_STANDARD.decode(value.as_str().unwrap_or_default())?);
        let mut stored = BTreeMap::new();
        for pair in said["kvs"].as_array().into_iter().flatten() {
            let value = decode(&pair["value"])?;
            let beginning = String::from_utf8_lossy(&value[..value.len().min(40)]).into_owned();
            stored.insert(String::from_utf8(decode(&pair["key"])?)?, beginning);
        }
        Ok(stored)
    }

    fn everything_is_stored_as(&self, resource: &str, prefix: &str) -> Result<()> {
        let stored = self.stored(resource)?;
        let least = if resource == "secrets" { SECRETS } else { 1 };
        ensure!(stored.len() >= least, "only {} of {resource}", stored.len());
        match stored.iter().find(|(_, value)| !value.starts_with(prefix)) {
            None => Ok(()),
            Some((key, value)) => bail!("{key} is stored as {value:?}, not with {prefix:?}"),
        }
    }

    /// The containers of the control plane: another one means a restart.
    fn containers(&self) -> Result<Vec<String>> {
        let pods = self.target.json(&["get", "pods", "-n", "kube-system", "-l", "tier=control-plane"])?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        ensure!(pods.len() == 4, "{} pods", pods.len());
        Ok(pods.iter().map(|pod| pod["status"]["containerStatuses"][0]["containerID"].to_string()).collect())
    }
}
