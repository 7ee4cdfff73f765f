//! The parsed NodePool, with the same refusals as in admission.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use keyplane_crds::{Bootstrap, Download, Downloads, Layout, NodePoolRole, NodePoolSpec, Taint, parse_duration};
use serde_json::{Map, Value, json};

use super::labels::{self, Setter, ZONE_LABEL, setter};
use crate::approval::matches_pattern;
use crate::manifests::node_kubelet_configuration;
use crate::model::{Cluster, FieldError, is_dns_name, refuse_kubelet_settings};

/// A pool of worker nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// The name of the NodePool.
    pub name: String,
    /// The nodes that are listed by name.
    pub machines: Vec<Machine>,
    /// The nodes that may join by name pattern and address.
    pub selector: Option<Selector>,
    /// The lifetime of a bootstrap token.
    pub token_ttl: Duration,
    /// The settings of the join data.
    pub bootstrap: Bootstrap,
    /// The user's settings for the kubelets.
    pub kubelet: Option<Map<String, Value>>,
    /// The labels of the Nodes.
    pub labels: BTreeMap<String, String>,
    /// The taints of the Nodes.
    pub taints: Vec<Taint>,
    /// The kernel parameters of the hosts.
    pub sysctls: BTreeMap<String, String>,
}

/// A node that is listed by name in `spec.machines`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The name of the Node.
    pub name: String,
    /// The addresses; at least one.
    pub addresses: Vec<IpAddr>,
    /// The failure domain, for example a zone or a rack.
    pub failure_domain: Option<String>,
    /// The provider ID of the cloud instance.
    pub provider_id: Option<String>,
}

/// The rule for nodes that join without being listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The pattern of node names, with `*` for any characters but a dot.
    pub name_pattern: String,
    /// The CIDRs of their addresses.
    pub address_cidrs: Vec<IpNet>,
}

impl Pool {
    /// Parses a pool of worker nodes of this cluster. `None` for a pool with the role `ControlPlane`, whose nodes are
    /// in the ClusterSpec.
    ///
    /// # Errors
    /// Returns the first invalid field.
    pub fn parse(name: &str, spec: &NodePoolSpec, cluster: &Cluster) -> Result<Option<Self>, FieldError> {
        if !is_dns_name(name) || name.contains('.') || name.len() > 50 {
            let message = format!("{name:?} must be a DNS label of at most 50 characters");
            return Err(FieldError::new("metadata.name", message));
        }
        if spec.machines.is_empty() && spec.selector.is_none() {
            let message =
                "declare machines, or a selector with namePattern and addressCIDRs: a pool with neither admits no node";
            return Err(FieldError::new("spec", message));
        }
        if spec.role == NodePoolRole::ControlPlane {
            return Ok(None);
        }
        let machines = parse_machines(spec, cluster)?;
        let selector = spec.selector.as_ref().map(parse_selector).transpose()?;
        refuse_kubelet_settings("spec.kubelet", spec.kubelet.as_ref())?;
        for (ours, place) in [("registerWithTaints", "spec.taints"), ("providerID", "spec.machines[].providerID")] {
            if spec.kubelet.as_ref().is_some_and(|settings| settings.contains_key(ours)) {
                return Err(FieldError::new("spec.kubelet", format!("{ours} has a field of its own: write {place}")));
            }
        }
        refuse_labels(&spec.labels, selector.is_some())?;
        for taint in &spec.taints {
            if !labels::is_key(&taint.key) || !labels::is_value(&taint.value) {
                let message =
                    format!("{}={} is not a taint: write one like example.com/gpu=true", taint.key, taint.value);
                return Err(FieldError::new("spec.taints", message));
            }
            if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&taint.effect.as_str()) {
                let message =
                    format!("{} is not an effect: write NoSchedule, PreferNoSchedule or NoExecute", taint.effect);
                return Err(FieldError::new("spec.taints", message));
            }
        }
        refuse_sysctls(&spec.sysctls)?;
        let bootstrap = spec.bootstrap.clone().unwrap_or_default();
        if !has_join_data(cluster, selector.as_ref()) {
            refuse_join_data_settings(&bootstrap)?;
        }
        Ok(Some(Self {
            name: name.to_owned(),
            machines,
            selector,
            token_ttl: parse_token_ttl(&bootstrap.token_ttl)?,
            bootstrap: refuse_bootstrap(bootstrap)?,
            kubelet: spec.kubelet.clone(),
            labels: spec.labels.clone(),
            taints: spec.taints.clone(),
            sysctls: spec.sysctls.clone(),
        }))
    }

    /// Returns whether a Node with this name belongs to the pool.
    #[must_use]
    pub fn has(&self, node: &str) -> bool {
        self.machine(node).is_some()
            || self.selector.as_ref().is_some_and(|selector| matches_pattern(&selector.name_pattern, node))
    }

    /// Returns whether nodes of the pool join with a bootstrap token. With the layout `Systemd`, Keyplane issues the
    /// first certificate of listed nodes.
    #[must_use]
    pub fn joins_by_token(&self, cluster: &Cluster) -> bool {
        has_join_data(cluster, self.selector.as_ref())
    }

    /// The listed node with this name.
    #[must_use]
    pub fn machine(&self, node: &str) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.name == node)
    }

    /// The KubeletConfiguration of the pool.
    #[must_use]
    pub fn kubelet_configuration(&self, cluster: &Cluster) -> Value {
        let mut configuration = node_kubelet_configuration(cluster, self.kubelet.as_ref());
        if !self.taints.is_empty() {
            let taint = |taint: &Taint| json!({"key": taint.key, "value": taint.value, "effect": taint.effect});
            configuration["registerWithTaints"] = self.taints.iter().map(taint).collect();
        }
        configuration
    }

    /// The labels of a Node. The failure domain of a listed node takes precedence over a zone label of the pool.
    #[must_use]
    pub fn node_labels(&self, machine: Option<&Machine>) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        if let Some(zone) = machine.and_then(|machine| machine.failure_domain.clone()) {
            labels.insert(ZONE_LABEL.to_owned(), zone);
        }
        labels
    }

    /// The labels that the kubelet sets itself, in the format of `--node-labels`.
    #[must_use]
    pub fn kubelet_labels(&self, machine: Option<&Machine>) -> String {
        let labels = self.node_labels(machine).into_iter().filter(|(key, _)| setter(key) == Setter::Kubelet);
        labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    }
}

impl Machine {
    /// The addresses for `--node-ip`: the first, and in a dual-stack cluster the first of the other family.
    #[must_use]
    pub fn node_ips(&self, cluster: &Cluster) -> Vec<IpAddr> {
        let first = self.addresses.iter().take(1);
        let other = self.addresses.iter().find(|other| {
            cluster.service_cidrs.len() > 1
                && self.addresses.first().is_some_and(|first| first.is_ipv4() != other.is_ipv4())
        });
        first.chain(other).copied().collect()
    }
}

fn parse_machines(spec: &NodePoolSpec, cluster: &Cluster) -> Result<Vec<Machine>, FieldError> {
    const FIELD: &str = "spec.machines";
    let mut machines: Vec<Machine> = vec![];
    for written in &spec.machines {
        let name = written.name.clone();
        if !is_dns_name(&name) || name.len() > 63 {
            return Err(FieldError::new(FIELD, format!("{name:?} is not a lower-case DNS name, for example worker1")));
        }
        if cluster.nodes.iter().any(|node| node.name == name) {
            let message = format!("{name} is a control-plane node of the ClusterSpec: leave it out of this pool");
            return Err(FieldError::new(FIELD, message));
        }
        let field = || format!("{FIELD}[{name}].addresses");
        let parse = |text: &String| {
            text.parse::<IpAddr>().map_err(|_| FieldError::new(field(), format!("{text:?} is not an IP address")))
        };
        let addresses = written.addresses.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(FieldError::new(field(), "is empty: write at least one address"));
        }
        for address in &addresses {
            if let Some(range) =
                cluster.service_cidrs.iter().chain(&cluster.pod_cidrs).find(|range| range.contains(address))
            {
                let message = format!("{address} is in {range}, a CIDR of Services or Pods: choose another address");
                return Err(FieldError::new(field(), message));
            }
            if let Some(node) = cluster.nodes.iter().find(|node| node.addresses.contains(address)) {
                return Err(FieldError::new(
                    field(),
                    format!("{address} is an address of the control-plane node {}", node.name),
                ));
            }
        }
        for other in &machines {
            if other.name == name {
                return Err(FieldError::new(FIELD, format!("the name {name} is listed twice")));
            }
            if let Some(address) = addresses.iter().find(|address| other.addresses.contains(address)) {
                return Err(FieldError::new(FIELD, format!("{address} is listed for {} and for {name}", other.name)));
            }
        }
        let zone = written.failure_domain.as_deref().unwrap_or("x");
        if zone.is_empty() || !labels::is_value(zone) {
            let message = format!("{zone:?} is not a label value, for example rack-3");
            return Err(FieldError::new(format!("{FIELD}[{name}].failureDomain"), message));
        }
        let id = written.provider_id.as_deref().unwrap_or("x://x");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~:/%@=+,-".contains(&byte);
        if id.split_once("://").is_none_or(|(provider, id)| provider.is_empty() || id.is_empty())
            || !id.bytes().all(plain)
        {
            let message = format!("{id:?} is not a provider ID, for example aws:///eu-central-1a/i-0123456789abcdef0");
            return Err(FieldError::new(format!("{FIELD}[{name}].providerID"), message));
        }
        let (failure_domain, provider_id) = (written.failure_domain.clone(), written.provider_id.clone());
        machines.push(Machine { name, addresses, failure_domain, provider_id });
    }
    Ok(machines)
}

fn parse_selector(written: &keyplane_crds::MachineSelector) -> Result<Selector, FieldError> {
    let pattern = &written.name_pattern;
    // Each star can stand for a letter, so the pattern with letters in place of the stars must be a DNS name.
    if pattern.is_empty() || !is_dns_name(&pattern.replace('*', "a")) {
        let message = format!("{pattern:?} is not a lower-case DNS name with * in it, for example worker-*");
        return Err(FieldError::new("spec.selector.namePattern", message));
    }
    let range = |text: &String| {
        let range = text.parse::<IpNet>().ok().filter(|range| range.trunc() == *range);
        let message = || format!("{text:?} is not a CIDR with zero host bits, for example 10.0.1.0/24");
        range.ok_or_else(|| FieldError::new("spec.selector.addressCIDRs", message()))
    };
    let address_cidrs = written.address_cidrs.iter().map(range).collect::<Result<Vec<_>, _>>()?;
    if address_cidrs.is_empty() {
        return Err(FieldError::new("spec.selector.addressCIDRs", "is empty: write a CIDR, for example 10.0.1.0/24"));
    }
    Ok(Selector { name_pattern: pattern.clone(), address_cidrs })
}

fn refuse_labels(written: &BTreeMap<String, String>, selector: bool) -> Result<(), FieldError> {
    let refuse = |message: String| Err(FieldError::new("spec.labels", message));
    for (key, value) in written {
        if !labels::is_key(key) || !labels::is_value(value) {
            return refuse(format!("{key}={value} is not a label: write one like example.com/disk=ssd"));
        }
        match setter(key) {
            Setter::Reserved => return refuse(format!("{key} can't be set by a pool: use a prefix of your own")),
            Setter::Keyplane if selector => {
                return refuse(format!(
                    "a kubelet may not set {key} on its own Node, and Keyplane sets it only on nodes that are listed by \
                     name: list the nodes in spec.machines in place of the selector, or leave the label out"
                ));
            }
            Setter::Keyplane | Setter::Kubelet => {}
        }
    }
    Ok(())
}

fn refuse_sysctls(sysctls: &BTreeMap<String, String>) -> Result<(), FieldError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/*-".contains(&byte);
    let good = |key: &str, value: &str| {
        key.contains(['.', '/'])
            && key.bytes().all(plain)
            && !value.is_empty()
            && value.bytes().all(|b| (b' '..=b'~').contains(&b))
    };
    match sysctls.iter().find(|(key, value)| !good(key, value)) {
        Some((key, value)) => {
            let message =
                format!("{key:?} = {value:?} is not a kernel parameter, for example net.core.somaxconn: \"4096\"");
            Err(FieldError::new("spec.sysctls", message))
        }
        None => Ok(()),
    }
}

fn has_join_data(cluster: &Cluster, selector: Option<&Selector>) -> bool {
    cluster.layout() == Layout::StaticPod || selector.is_some()
}

/// Refuses settings of join data in a pool without join data. The API server fills in the defaults, so only other
/// values are known to be the user's.
fn refuse_join_data_settings(bootstrap: &Bootstrap) -> Result<(), FieldError> {
    let default = Bootstrap::default();
    let settings = [
        ("format", bootstrap.format != default.format),
        ("tokenTTL", bootstrap.token_ttl != default.token_ttl),
        ("downloads", bootstrap.downloads != default.downloads),
        ("hosts", bootstrap.hosts != default.hosts),
    ];
    match settings.into_iter().find(|(_, is_set)| *is_set) {
        Some((name, _)) => {
            let message = "is for join data; with the layout Systemd the nodes that spec.machines lists have their own \
                           files and no join data: leave it out, or declare nodes that join with spec.selector";
            Err(FieldError::new(format!("spec.bootstrap.{name}"), message))
        }
        None => Ok(()),
    }
}

fn parse_token_ttl(text: &str) -> Result<Duration, FieldError> {
    let range = Duration::from_mins(10)..=Duration::from_hours(720);
    let message = || format!("{text:?} is not a duration from 10m to 720h, for example 24h");
    let parsed = parse_duration(text).ok().filter(|ttl| range.contains(ttl));
    parsed.ok_or_else(|| FieldError::new("spec.bootstrap.tokenTTL", message()))
}

fn refuse_bootstrap(bootstrap: Bootstrap) -> Result<Bootstrap, FieldError> {
    let field = "spec.bootstrap.downloads";
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~:/?%@&=+,{}-".contains(&byte);
    for Download { url, sha256 } in bootstrap.downloads.iter().flat_map(all) {
        if !(url.starts_with("https://") || url.starts_with("http://")) || !url.bytes().all(plain) {
            let message =
                format!("{url:?} is not a URL: write one like https://files.corp.example/{{version}}/{{arch}}/kubelet");
            return Err(FieldError::new(field, message));
        }
        let Some(sha256) = sha256 else { continue };
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            let message = format!(
                "{sha256:?} is not a SHA-256 checksum: write 64 lower-case hexadecimal digits, as sha256sum prints them"
            );
            return Err(FieldError::new(field, message));
        }
        if url.contains("{arch}") {
            let message = "a sha256 is the checksum of one file: write the architecture in the url in place of {arch}, or leave sha256 out";
            return Err(FieldError::new(field, message));
        }
    }
    for entry in &bootstrap.hosts {
        if entry.address.parse::<IpAddr>().is_err()
            || entry.names.is_empty()
            || !entry.names.iter().all(|name| is_dns_name(name))
        {
            let message = format!("{} {} is not a line for /etc/hosts", entry.address, entry.names.join(" "));
            return Err(FieldError::new("spec.bootstrap.hosts", message));
        }
    }
    Ok(bootstrap)
}

/// Returns all downloads.
pub(super) fn all(downloads: &Downloads) -> impl Iterator<Item = &Download> {
    let Downloads { kubelet, kubectl, containerd, runc, cni_plugins } = downloads;
    [kubelet, kubectl, containerd, runc, cni_plugins].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Policy;

    const LISTED: &str = "machines: [{name: worker1, addresses: [10.0.0.21]}]";
    const SELECTOR: &str = "selector: {namePattern: worker-*, addressCIDRs: [10.0.1.0/24]}";

    fn parse(layout: &str, nodes: &str, bootstrap: &str) -> Result<Option<Pool>, FieldError> {
        let cluster = format!(
            "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {{host: api.demo.example}}
controlPlane: {{layout: {layout}, nodes: [{{name: cp1, addresses: [10.0.0.11]}}]}}
"
        );
        let cluster = serde_saphyr::from_str(&cluster).unwrap();
        let cluster = Cluster::parse("demo", "default", &cluster, Policy::default()).unwrap();
        let pool = format!("clusterRef: {{name: demo}}\n{nodes}\nbootstrap: {bootstrap}\n");
        Pool::parse("workers", &serde_saphyr::from_str(&pool).unwrap(), &cluster)
    }

    #[test]
    fn refuses_bootstrap_settings_of_pools_without_join_data() {
        for (bootstrap, field) in [
            ("{format: CloudConfig}", "spec.bootstrap.format"),
            ("{tokenTTL: 48h}", "spec.bootstrap.tokenTTL"),
            ("{downloads: {runc: {url: 'https://files.example/runc'}}}", "spec.bootstrap.downloads"),
            ("{hosts: [{address: 10.0.0.5, names: [files.example]}]}", "spec.bootstrap.hosts"),
        ] {
            let error = parse("Systemd", LISTED, bootstrap).unwrap_err();
            assert_eq!(error.field, field, "{bootstrap}");
            assert!(error.message.contains("leave it out"), "{error}");
            assert!(parse("StaticPod", LISTED, bootstrap).is_ok(), "{bootstrap}");
            assert!(parse("Systemd", SELECTOR, bootstrap).is_ok(), "{bootstrap}");
            let both = format!("{LISTED}\n{SELECTOR}");
            assert!(parse("Systemd", &both, bootstrap).is_ok(), "{bootstrap}");
        }
    }

    #[test]
    fn accepts_default_bootstrap_of_pools_without_join_data() {
        for bootstrap in ["{}", "{format: Script, tokenTTL: 24h}"] {
            assert!(parse("Systemd", LISTED, bootstrap).is_ok(), "{bootstrap}");
        }
    }
}
