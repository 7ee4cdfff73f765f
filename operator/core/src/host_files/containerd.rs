//! The files of containerd: cgroup driver, pause image and registry mirrors.

use std::fmt::Write;

use keyplane_crds::RegistryMirror;
use serde_json::Value;

use super::PUBLIC;
use crate::host_files::{CONTAINER_RUNTIME_ENDPOINT, File};
use crate::images::Image;
use crate::model::Cluster;

/// The directory with one subdirectory per registry.
const REGISTRY_DIRECTORY: &str = "/etc/containerd/certs.d";

/// Renders `/etc/containerd/config.toml` for containerd 2. Other settings keep containerd's defaults.
pub(super) fn configuration(cluster: &Cluster, kubelet: &Value) -> String {
    let sandbox = quoted(&Image::Pause.reference(cluster));
    let systemd = kubelet.get("cgroupDriver").and_then(Value::as_str) == Some("systemd");
    format!(
        "version = 3

# Settings of your own go into files there; they win over those below.
imports = [\"/etc/containerd/conf.d/*.toml\"]

[plugins.\"io.containerd.cri.v1.images\".pinned_images]
  sandbox = {sandbox}

[plugins.\"io.containerd.cri.v1.images\".registry]
  config_path = \"{REGISTRY_DIRECTORY}\"

[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]
  runtime_type = \"io.containerd.runc.v2\"

# The same driver as the kubelet's cgroupDriver.
[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc.options]
  SystemdCgroup = {systemd}
"
    )
}

/// Renders `/etc/crictl.yaml` with the containerd endpoint for crictl.
pub(super) fn crictl() -> String {
    format!("runtime-endpoint: {CONTAINER_RUNTIME_ENDPOINT}\nimage-endpoint: {CONTAINER_RUNTIME_ENDPOINT}\n")
}

/// Renders a `hosts.toml` for each registry with mirrors, and the CA bundles of the mirrors.
pub(super) fn mirrors(cluster: &Cluster) -> Vec<File> {
    let mut files = vec![];
    for mirror in &cluster.spec.registry_mirrors {
        let directory = format!("{REGISTRY_DIRECTORY}/{}", mirror.registry);
        // Keys of a ConfigMap can't contain a colon.
        let key = mirror.registry.replace(':', "-");
        let bundle = mirror.ca_bundle.as_ref().map(|text| {
            let path = format!("{directory}/ca.crt");
            let content = format!("{}\n", text.trim_end());
            files.push(File::new(format!("mirror-{key}-ca.crt"), path.clone(), PUBLIC, content));
            path
        });
        let content = hosts(mirror, bundle.as_deref());
        files.push(File::new(format!("mirror-{key}-hosts.toml"), format!("{directory}/hosts.toml"), PUBLIC, content));
    }
    files
}

fn hosts(mirror: &RegistryMirror, bundle: Option<&str>) -> String {
    let settings = |endpoint: &str| {
        let mut text = "capabilities = [\"pull\", \"resolve\"]\n".to_owned();
        if has_api_path(endpoint) {
            text.push_str("override_path = true\n");
        }
        if let Some(bundle) = bundle {
            let _ = writeln!(text, "ca = {}", quoted(bundle));
        }
        text
    };
    let mut mirrors = mirror.endpoints.as_slice();
    let mut text = String::new();
    match (mirror.fallback, mirror.registry.as_str()) {
        // containerd tries the server after all mirrors. Without a fallback, the last mirror is the server.
        (false, _) => {
            if let Some((last, others)) = mirrors.split_last() {
                mirrors = others;
                let _ = write!(text, "server = {}\n{}", quoted(last), settings(last));
            }
        }
        // Without `server`, the default is the registry itself.
        (true, "_default") => {}
        // The API of Docker Hub has another host name.
        (true, "docker.io") => text.push_str("server = \"https://registry-1.docker.io\"\n"),
        (true, registry) => _ = writeln!(text, "server = {}", quoted(&format!("https://{registry}"))),
    }
    for endpoint in mirrors {
        let _ = write!(text, "\n[host.{}]\n{}", quoted(endpoint), settings(endpoint));
    }
    text
}

/// Returns whether the path of the URL contains the API version.
fn has_api_path(endpoint: &str) -> bool {
    let path = endpoint.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    path.split('/').any(|segment| segment == "v2")
}

/// Quotes a string for TOML. Admission and parsing refuse control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(registry: &str, endpoints: &[&str], fallback: bool) -> RegistryMirror {
        let endpoints = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
        RegistryMirror { registry: registry.to_owned(), endpoints, fallback, ca_bundle: None }
    }

    #[test]
    fn registry_is_the_last_host_only_with_fallback() {
        let text =
            |fallback| hosts(&mirror("registry.k8s.io", &["https://a.example", "https://b.example"], fallback), None);
        assert!(text(true).starts_with("server = \"https://registry.k8s.io\"\n\n[host.\"https://a.example\"]\n"));
        assert!(text(false).starts_with("server = \"https://b.example\"\ncapabilities"));
        assert!(!text(false).contains("registry.k8s.io") && text(false).contains("[host.\"https://a.example\"]"));
        assert!(hosts(&mirror("docker.io", &["https://a.example"], true), None).contains("registry-1.docker.io"));
        assert!(!hosts(&mirror("_default", &["https://a.example"], true), None).contains("server"));
    }

    #[test]
    fn overrides_path_of_mirror_with_v2_in_its_path() {
        assert!(has_api_path("https://harbor.example/v2/k8s"));
        assert!(!has_api_path("https://harbor.example/k8s"));
        assert!(!has_api_path("https://v2"));
        let text = hosts(&mirror("registry.k8s.io", &["https://harbor.example/v2/k8s"], true), Some("/x/ca.crt"));
        assert!(text.contains("override_path = true") && text.contains("ca = \"/x/ca.crt\""), "{text}");
    }
}
