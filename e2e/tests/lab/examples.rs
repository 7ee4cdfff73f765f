//! What the documentation shows is what Keyplane takes.

use std::fs;

use anyhow::{Context, Result, ensure};
use keyplane_e2e::installation::{Installation, PATIENCE};
use keyplane_e2e::{Lab, client_keys, eventually};

pub(crate) fn every_example_is_admitted_and_rendered() -> Result<()> {
    let lab = Lab::start()?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    // What the owner of an external etcd hands out, under the names that the example gives.
    let keys = |name: &str| lab.folder().join(name);
    client_keys::make(&keys("corp-etcd"))?;
    // And authorities below roots of the user's.
    for name in ["corp-ca", "corp-etcd-ca"] {
        client_keys::make_authority(&keys(name))?;
    }
    for name in ["corp-etcd", "corp-ca", "corp-etcd-ca"] {
        let files = ["ca.crt", "tls.crt", "tls.key"];
        let files = files.map(|file| format!("--from-file={}", keys(name).join(file).display()));
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        admin.run(&[&["create", "secret", "generic", name][..], &files].concat())?;
    }
    // The namespace that Keyplane is installed in, which one of the examples is for.
    admin.run(&["create", "namespace", "keyplane-system"])?;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    ensure!(files.len() > 1, "{files:?}");
    for file in files {
        let applied = admin.run(&["apply", "-o", "name", "-f", &file.to_string_lossy()])?;
        for object in applied.lines() {
            if let Some(cluster) = object.strip_prefix("clusterspec.keyplane.io/") {
                installation.wait_for(cluster, "Rendered").with_context(|| file.display().to_string())?;
            }
        }
        for object in applied.lines().filter(|object| object.contains(".keyplane.io/")) {
            if let Some(pool) = object.strip_prefix("nodepool.keyplane.io/") {
                eventually(object, PATIENCE, || admin.check_condition(&["nodepool", pool], "Ready"))?;
            }
        }
    }
    Ok(())
}
