//! Output of `keyplane render`: a directory for each node, and one for the API objects of both clusters.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use keyplane_crds::keys;
use kube::ResourceExt;

use super::{RenderError, file_error};
use keyplane_core::addons::Addon;
use keyplane_core::certificate_authorities::ClusterCas;
use keyplane_core::join::{self, Pool};
use keyplane_core::model::Cluster;
use keyplane_core::names::INDEX_KEY;
use keyplane_core::objects::IndexEntry;
use keyplane_core::observed::Observed;
use keyplane_core::{cluster_bootstrap, yaml};

/// Subdirectory for the API objects of both clusters.
pub(super) const OBJECTS_DIRECTORY: &str = "objects";

/// Writes the nodes' files; returns the number of files.
pub(super) fn write_nodes(output: &Path, observed: &Observed) -> Result<usize, RenderError> {
    let node_of = |labels: &BTreeMap<String, String>| labels.get(keys::NODE_LABEL).cloned();
    let secrets = observed.secrets.values().map(|secret| {
        let data = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect();
        (node_of(secret.labels()), data)
    });
    let config_maps = observed.config_maps.values().map(|config_map| {
        let data = config_map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        (node_of(config_map.labels()), data.collect::<BTreeMap<_, _>>())
    });
    let mut written = 0;
    for (node, data) in secrets.chain(config_maps) {
        let (Some(node), Some(index)) = (node, data.get(INDEX_KEY)) else { continue };
        let files: Vec<IndexEntry> = serde_json::from_slice(index).unwrap_or_default();
        for file in files {
            let relative = file.path.trim_start_matches('/');
            let mode = u32::from_str_radix(&file.mode, 8).unwrap_or(0o600);
            write_file(&output.join(&node).join(relative), data.get(&file.key).map_or(&[][..], Vec::as_slice), mode)?;
            written += 1;
        }
    }
    Ok(written)
}

/// Writes the objects of the management cluster and of the target cluster.
pub(super) fn write_objects(
    output: &Path,
    cluster: &Cluster,
    workers: &[Pool],
    observed: &Observed,
) -> Result<(), RenderError> {
    let management = output.join(OBJECTS_DIRECTORY).join("management");
    for (name, secret) in &observed.secrets {
        write_file(&management.join(format!("secret-{name}.yaml")), yaml::write_object(secret).as_bytes(), 0o600)?;
    }
    for (name, config_map) in &observed.config_maps {
        let path = management.join(format!("configmap-{name}.yaml"));
        write_file(&path, yaml::write_object(config_map).as_bytes(), 0o644)?;
    }
    let Some(cas) = ClusterCas::load(cluster, observed) else { return Ok(()) };
    let trust = &cas.trust();
    let target = output.join(OBJECTS_DIRECTORY).join("target").join(&cluster.name);
    let of_pools = join::target_objects(&cluster.namespace, workers, &[]);
    for wanted in cluster_bootstrap::objects(cluster, trust, cluster.version, false).into_iter().chain(of_pools) {
        let metadata = &wanted.object.metadata;
        let parts = [Some(wanted.resource.kind.to_lowercase()), metadata.namespace.clone(), metadata.name.clone()];
        let name = parts.into_iter().flatten().collect::<Vec<_>>().join("-").replace(':', "-");
        let path = target.join(format!("{name}.yaml"));
        write_file(&path, yaml::write_object(&wanted.object).as_bytes(), 0o644)?;
    }
    for addon in Addon::ALL.into_iter().filter(|addon| addon.is_enabled(cluster)) {
        // One file per add-on, because kubectl applies files by name, and the objects of one file in their order.
        let objects = addon.objects(cluster, cluster.version);
        let documents: Vec<_> = objects.iter().map(|wanted| yaml::write_object(&wanted.object)).collect();
        let path = target.join(format!("addon-{}.yaml", addon.name().to_lowercase()));
        write_file(&path, documents.join("---\n").as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Creates a directory that only its owner can read, because it contains keys.
pub(super) fn make_directory(path: &Path) -> Result<(), RenderError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| file_error(path, source))
}

/// Writes a file that must not exist. The file is created with its mode, so no other user can read it at any moment.
fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), RenderError> {
    if let Some(directory) = path.parent() {
        make_directory(directory)?;
    }
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        // The umask may have removed mode bits that the node's file must have.
        file.set_permissions(fs::Permissions::from_mode(mode))
    };
    write().map_err(|source| file_error(path, source))
}
