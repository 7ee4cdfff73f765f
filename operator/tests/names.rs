//! Names of the API are defined in one place each: `keys.rs` and `reasons.rs` of `keyplane-crds`.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use keyplane_crds::GROUP;
use keyplane_crds::reasons::{REASONS, REQUEST_REASONS};

/// Reasons that are also used for something else: the condition of a Pod or Node, the action of an Event, the reason to
/// issue a certificate, a stage.
const COMMON: [&str; 4] = ["Ready", "Write", "Unreadable", "Drop"];

/// The sources below a folder, except tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_test = |path: &PathBuf| path.ends_with("tests") || path.ends_with("tests.rs");
    paths
        .filter(|path| !is_test(path))
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The lines of the code before its unit tests, without comments.
fn code(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect()
}

fn operator() -> Vec<PathBuf> {
    let files = sources(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(files.len() > 100, "only {} files", files.len());
    files
}

fn crds() -> Vec<PathBuf> {
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/src"))
}

#[test]
fn every_key_is_defined_in_one_file() {
    let (prefix, version) = (format!("{GROUP}/"), format!("{GROUP}/v1alpha1"));
    for file in operator().iter().chain(&crds()).filter(|file| !file.ends_with("crds/src/keys.rs")) {
        for line in code(file) {
            assert!(!line.replace(&version, "").contains(&prefix), "{}: {line}", file.display());
        }
    }
}

#[test]
fn every_reason_is_defined_in_one_file() {
    let names: Vec<_> = REASONS.iter().chain(REQUEST_REASONS).map(|reason| reason.name).collect();
    for file in operator() {
        for line in code(&file) {
            let literal = names.iter().find(|name| !COMMON.contains(name) && line.contains(&format!("\"{name}\"")));
            assert_eq!(literal, None, "{}: {line}", file.display());
        }
    }
}

#[test]
fn every_reason_has_one_meaning() {
    let mut names: Vec<_> = REASONS.iter().chain(REQUEST_REASONS).map(|reason| reason.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
