//! The rooms that decide are pure: no client, no clock, no thread, no log.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

const PURE: &[&str] = &[
    "addons",
    "agents",
    "approval",
    "checksum.rs",
    "cluster",
    "encryption",
    "etcd",
    "join",
    "kubeconfig.rs",
    "manifests",
    "node/authorities.rs",
    "node/index.rs",
    "node/leaves.rs",
    "node/own_kubeconfig.rs",
    "node/owners.rs",
    "node/settings.rs",
    "node/token.rs",
    "node/units.rs",
    "pki",
    "plan",
    "preparation",
    "rollout",
    "rotation",
    "signing",
    "target",
    "yaml.rs",
];

/// What a pure room does not name. `kube` itself is fine for types such as `ResourceExt`.
const FORBIDDEN: &[&str] = &[
    "tokio",
    "tracing",
    "Timestamp::now",
    "SystemTime",
    "Instant",
    "kube::Client",
    "kube::Api",
    "kube::{Api",
    "kube::{Client",
    "kube::runtime",
    "kube::client",
    "std::fs",
    "std::env",
    "std::net::Tcp",
    "crate::controllers",
    "crate::kube::",
    "crate::app::",
];

/// Random numbers are for what is issued, not for what is decided.
const RANDOM: &[&str] = &["rand::fill", "KeyPair::generate", "generate_rsa_for"];
const MAY_BE_RANDOM: &[&str] = &["pki/certificate.rs", "pki/key.rs"];

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|entry| sources(&entry))
        .filter(|file| file.extension().is_some_and(|ending| ending == "rs"))
        .collect()
}

/// The code before its tests, without comments.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn relative(file: &Path) -> String {
    file.strip_prefix(root()).unwrap().display().to_string()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn rooms_that_decide_have_no_client_no_clock_and_no_dice() {
    let mut looked_at = 0;
    for room in PURE {
        for file in sources(&root().join(room)) {
            if relative(&file).contains("/tests/") {
                continue;
            }
            looked_at += 1;
            let code = code(&file);
            for word in FORBIDDEN {
                assert!(!code.contains(word), "{} names {word}", relative(&file));
            }
            if !MAY_BE_RANDOM.contains(&relative(&file).as_str()) {
                for word in RANDOM {
                    assert!(!code.contains(word), "{} names {word}", relative(&file));
                }
            }
        }
    }
    assert!(looked_at > 30, "only {looked_at} files");
}

#[test]
fn no_file_is_a_hall() {
    for file in sources(&root()) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 450, "{} has {lines} lines: it is probably two rooms", relative(&file));
    }
}
