//! kubeadm as the oracle: the real one writes its files into a folder, and they are held against Keyplane's.
//!
//! kubeadm writes to fixed places, so it runs in a mount namespace of its own where these places are that folder. The
//! comparison asks openssl what a certificate says, and a YAML parser what a file says; the differences that may be are
//! the table in `docs/kubeadm-differences.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::command;
use crate::parts::Parts;

/// Runs kubeadm's phases with its places bound to a folder. `$1` is the configuration, `$2` the folder.
const PHASES: &str = r#"
set -eu
mount --make-rprivate /
mkdir -p /etc/kubernetes /var/lib/kubelet "$2/etc" "$2/kubelet"
mount --bind "$2/etc" /etc/kubernetes
mount --bind "$2/kubelet" /var/lib/kubelet
for phase in 'certs all' 'kubeconfig all' 'control-plane all' 'etcd local' kubelet-start; do
  # kubelet-start also tries to start the kubelet, fails where there is no systemd, and only says so.
  "$KUBEADM" init phase $phase --config "$1" >&2
done
"#;

/// Shows rendered files to kubeadm at their places. `$1` is the folder of a node.
const CHECK_EXPIRATION: &str = r#"
set -eu
mount --make-rprivate /
mkdir -p /etc/kubernetes
mount --bind "$1/etc/kubernetes" /etc/kubernetes
exec "$KUBEADM" certs check-expiration
"#;

/// Lets kubeadm write the files of a first control-plane node into `folder`: `etc` and `kubelet`.
///
/// # Errors
/// When kubeadm fails.
pub fn kubeadm_init(parts: &Parts, configuration: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let file = folder.join("kubeadm.yaml");
    fs::write(&file, configuration)?;
    in_namespace(parts, PHASES, &[&file, folder]).map(|_| ())
}

/// What `kubeadm certs check-expiration` says of a node that `keyplane render` wrote.
///
/// # Errors
/// When kubeadm does not accept the files.
pub fn check_expiration(parts: &Parts, node: &Path) -> Result<String> {
    in_namespace(parts, CHECK_EXPIRATION, &[node])
}

fn in_namespace(parts: &Parts, script: &str, arguments: &[&Path]) -> Result<String> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script, "sh"]).args(arguments).env("KUBEADM", parts.program("kubeadm"));
    command::run(&mut unshare)
}

/// The objects that `kubeadm init phase addon` would apply, as it prints them; `addon` is `coredns` or `kube-proxy`.
///
/// # Errors
/// When kubeadm fails.
pub fn kubeadm_addon(parts: &Parts, configuration: &Path, addon: &str) -> Result<Vec<Value>> {
    let mut kubeadm = parts.command("kubeadm");
    kubeadm.args(["init", "phase", "addon", addon, "--print-manifest", "--config"]).arg(configuration);
    objects(&command::run(&mut kubeadm)?)
}

/// The objects in a text of YAML documents.
///
/// # Errors
/// When it is none.
pub fn objects(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Holds kubeadm's objects against Keyplane's, field by field. A text in a ConfigMap that is YAML is compared as such.
///
/// # Errors
/// When an object has no name.
pub fn object_differences(theirs: &[Value], ours: &[Value]) -> Result<Vec<Difference>> {
    let named = |objects: &[Value]| {
        let named = objects.iter().map(|object| {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
            let kind = text("/kind").context("an object without a kind")?;
            let name = text("/metadata/name").context("an object without a name")?;
            let namespace = text("/metadata/namespace").unwrap_or("-");
            Ok((format!("{kind} {namespace}/{name}"), parsed(object.clone())))
        });
        named.collect::<Result<BTreeMap<_, _>>>()
    };
    let (theirs, ours) = (named(theirs)?, named(ours)?);
    let mut found = vec![];
    for name in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
        let mut note = |place: &str, detail: String| {
            found.push(Difference { file: name.clone(), place: place.to_owned(), detail });
        };
        match (theirs.get(name), ours.get(name)) {
            (Some(theirs), Some(ours)) => compare_values("", theirs, ours, &mut note),
            (theirs, _) => note("object", format!("only {}", if theirs.is_some() { "kubeadm" } else { "Keyplane" })),
        }
    }
    Ok(found)
}

/// An object whose ConfigMap data is read, where it is YAML, and which always has labels, so that each is told by itself.
fn parsed(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.entry("labels").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    for text in object.get_mut("data").and_then(Value::as_object_mut).into_iter().flat_map(|data| data.values_mut()) {
        if let Ok(value @ Value::Object(_)) = yaml(text.as_str().unwrap_or_default()) {
            *text = value;
        }
    }
    object
}

/// A difference between the two: the file, and the flag, field or fact in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The file, below `/etc/kubernetes`, or below `/var/lib/kubelet` with `kubelet/` before it.
    pub file: String,
    /// Where in the file.
    pub place: String,
    /// What both say.
    pub detail: String,
}

/// Holds kubeadm's folder against a node that `keyplane render` wrote.
///
/// # Errors
/// When a file can't be read.
pub fn differences(kubeadm: &Path, node: &Path) -> Result<Vec<Difference>> {
    let theirs = files(&[("", kubeadm.join("etc")), ("kubelet/", kubeadm.join("kubelet"))])?;
    let ours = files(&[("", node.join("etc/kubernetes")), ("kubelet/", node.join("var/lib/kubelet"))])?;
    let mut found = vec![];
    let names: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    for name in names {
        let mut note = |place: &str, detail: String| {
            found.push(Difference { file: name.clone(), place: place.to_owned(), detail });
        };
        match (theirs.get(name), ours.get(name)) {
            (Some(theirs), Some(ours)) => compare(name, theirs, ours, &mut note)?,
            (theirs, _) => note("file", format!("only {}", if theirs.is_some() { "kubeadm" } else { "Keyplane" })),
        }
    }
    Ok(found)
}

fn files(folders: &[(&str, PathBuf)]) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for (prefix, root) in folders {
        let mut open = vec![root.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
                let path = entry?.path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    files.insert(format!("{prefix}{}", path.strip_prefix(root)?.display()), path);
                }
            }
        }
    }
    Ok(files)
}

fn compare(name: &str, theirs: &Path, ours: &Path, note: &mut dyn FnMut(&str, String)) -> Result<()> {
    let mode = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.permissions().mode() & 0o7777);
    if mode(theirs)? != mode(ours)? {
        note("mode", format!("kubeadm {:o}, Keyplane {:o}", mode(theirs)?, mode(ours)?));
    }
    let (their_text, our_text) = (fs::read_to_string(theirs)?, fs::read_to_string(ours)?);
    match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("crt") => compare_sets("", &certificate(theirs)?, &certificate(ours)?, note),
        Some("key") => {
            let label = |text: &str| text.lines().next().unwrap_or_default().to_owned();
            if label(&their_text) != label(&our_text) {
                note("PEM label", format!("kubeadm {}, Keyplane {}", label(&their_text), label(&our_text)));
            }
            compare_sets("", &key(theirs)?, &key(ours)?, note);
        }
        Some("pub") => compare_sets("", &public_key(theirs)?, &public_key(ours)?, note),
        Some("env") => compare_flags(&words(&their_text), &words(&our_text), note),
        Some("conf") => {
            let (mut their_config, mut our_config) = (yaml(&their_text)?, yaml(&our_text)?);
            compare_embedded(&mut their_config, &mut our_config, note)?;
            compare_values("", &their_config, &our_config, note);
        }
        _ => compare_values("", &yaml(&their_text)?, &yaml(&our_text)?, note),
    }
    Ok(())
}

fn yaml(text: &str) -> Result<Value> {
    Ok(serde_saphyr::from_str(text)?)
}

fn words(text: &str) -> Vec<String> {
    let value = text.trim().trim_start_matches("KUBELET_KUBEADM_ARGS=").trim_matches('"');
    value.split_whitespace().map(str::to_owned).collect()
}

/// Certificates and keys in a kubeconfig are asked about one by one; what they are is then the same for both.
fn compare_embedded(theirs: &mut Value, ours: &mut Value, note: &mut dyn FnMut(&str, String)) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let places = [
        ("/clusters/0/cluster/certificate-authority-data", "crt"),
        ("/users/0/user/client-certificate-data", "crt"),
        ("/users/0/user/client-key-data", "key"),
    ];
    for (place, kind) in places {
        let mut facts = vec![];
        for (who, config) in [("kubeadm", &mut *theirs), ("keyplane", &mut *ours)] {
            let Some(data) = config.pointer_mut(place) else { continue };
            let file = folder.path().join(format!("{who}.{kind}"));
            fs::write(&file, BASE64_STANDARD.decode(data.as_str().unwrap_or_default())?)?;
            facts.push(if kind == "crt" { certificate(&file)? } else { key(&file)? });
            *data = "asked about above".into();
        }
        if let [theirs, ours] = facts.as_slice() {
            compare_sets(place, theirs, ours, note);
        }
    }
    Ok(())
}

/// What openssl says of a certificate, line by line, without what is random: serial number, key, signature and key
/// identifiers. The times are rounded, as the two were not issued in the same second.
fn certificate(file: &Path) -> Result<BTreeSet<String>> {
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-text", "-certopt", "no_serial,no_sigdump,no_validity", "-in"]).arg(file);
    let text = command::run(&mut openssl)?;
    let hexadecimal =
        |line: &str| line.split(':').all(|part| part.len() <= 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
    let mut facts: BTreeSet<_> =
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !hexadecimal(line)).collect();
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-startdate", "-enddate", "-dateopt", "iso_8601", "-in"]).arg(file);
    for line in command::run(&mut openssl)?.lines() {
        let (which, time) = line.split_once('=').context("openssl's dates")?;
        // From now, in units of ten minutes: the two were issued within that time.
        let time: jiff::Timestamp = time.trim().replacen(' ', "T", 1).parse()?;
        let from_now = time.as_second() - jiff::Timestamp::now().as_second();
        let rounded = (from_now + if from_now > 0 { 300 } else { 0 }) / 600;
        facts.insert(format!("{which} in {rounded} times ten minutes"));
    }
    Ok(facts)
}

/// What openssl says of a private key: its kind and size.
fn key(file: &Path) -> Result<BTreeSet<String>> {
    let mut openssl = Command::new("openssl");
    openssl.args(["pkey", "-noout", "-text", "-in"]).arg(file);
    let text = command::run(&mut openssl)?;
    Ok(text.lines().filter(|line| line.contains("Private-Key") || line.contains("OID")).map(str::to_owned).collect())
}

fn public_key(file: &Path) -> Result<BTreeSet<String>> {
    let mut openssl = Command::new("openssl");
    openssl.args(["pkey", "-pubin", "-noout", "-text", "-in"]).arg(file);
    let text = command::run(&mut openssl)?;
    Ok(text.lines().filter(|line| line.contains("Public-Key") || line.contains("OID")).map(str::to_owned).collect())
}

fn compare_sets(place: &str, theirs: &BTreeSet<String>, ours: &BTreeSet<String>, note: &mut dyn FnMut(&str, String)) {
    for (who, these, those) in [("kubeadm", theirs, ours), ("Keyplane", ours, theirs)] {
        for fact in these.difference(those) {
            note(if place.is_empty() { "certificate" } else { place }, format!("only {who}: {fact}"));
        }
    }
}

fn compare_flags(theirs: &[String], ours: &[String], note: &mut dyn FnMut(&str, String)) {
    let flags = |words: &[String]| words.iter().map(|word| flag(word).to_owned()).collect::<BTreeSet<_>>();
    for name in flags(theirs).union(&flags(ours)) {
        let with = |words: &[String]| words.iter().filter(|word| flag(word) == name).cloned().collect::<Vec<_>>();
        if with(theirs) != with(ours) {
            note(name, format!("kubeadm {:?}, Keyplane {:?}", with(theirs), with(ours)));
        }
    }
    let order = |words: &[String], others: &[String]| -> Vec<String> {
        words.iter().map(|word| flag(word).to_owned()).filter(|name| flags(others).contains(name)).collect()
    };
    if order(theirs, ours) != order(ours, theirs) {
        note("order of flags", format!("kubeadm {theirs:?}, Keyplane {ours:?}"));
    }
}

fn flag(word: &str) -> &str {
    word.split('=').next().unwrap_or_default()
}

fn compare_values(place: &str, theirs: &Value, ours: &Value, note: &mut dyn FnMut(&str, String)) {
    let below = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for key in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
                match (theirs.get(key), ours.get(key)) {
                    (Some(theirs), Some(ours)) => compare_values(&below(key), theirs, ours, note),
                    (theirs, ours) => note(&below(key), format!("kubeadm {theirs:?}, Keyplane {ours:?}")),
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if place.ends_with(".command") => {
            let texts = |values: &[Value]| -> Vec<String> {
                values.iter().map(|value| value.as_str().unwrap_or_default().to_owned()).collect()
            };
            compare_flags(&texts(theirs), &texts(ours), note);
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            for (index, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                compare_values(&below(&index.to_string()), theirs, ours, note);
            }
        }
        (theirs, ours) if theirs == ours => {}
        (theirs, ours) => note(place, format!("kubeadm {theirs}, Keyplane {ours}")),
    }
}

/// A row of the table of differences that may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exception {
    file: String,
    place: String,
}

impl Exception {
    /// Whether the row is about this difference.
    #[must_use]
    pub fn allows(&self, difference: &Difference) -> bool {
        let file = match self.file.strip_prefix('*') {
            Some(ending) => difference.file.ends_with(ending),
            None => difference.file == self.file,
        };
        file && difference.place == self.place
    }
}

/// The table in `docs/kubeadm-differences.md`.
///
/// # Errors
/// When it can't be read, or a row has no reason.
pub fn exceptions() -> Result<Vec<Exception>> {
    table("File")
}

/// The same for the objects of add-ons.
///
/// # Errors
/// When it can't be read, or a row has no reason.
pub fn object_exceptions() -> Result<Vec<Exception>> {
    table("Object")
}

fn table(first_column: &str) -> Result<Vec<Exception>> {
    let head = format!("| {first_column} |");
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kubeadm-differences.md"))?;
    let table = text.lines().skip_while(|line| !line.starts_with(&head)).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [file, place, reason] = cells.as_slice() else { anyhow::bail!("not three columns: {line}") };
        ensure!(!reason.is_empty(), "no reason: {line}");
        Ok(Exception { file: (*file).to_owned(), place: (*place).to_owned() })
    });
    rows.collect()
}
