//! A NodePool, parsed: what admission refuses is refused here too.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use keyplane_crds::{Bootstrap, Download, Downloads, Layout, NodePoolRole, NodePoolSpec, Taint, parse_duration};
use serde_json::{Map, Value, json};

use super::labels::{self, Setter, ZONE_LABEL, setter};
use crate::approval::matches_pattern;
use crate::manifests::configuration_of_machines;
use crate::model::{Cluster, FieldError, is_dns_name, refuse_kubelet_settings};

/// A pool of workers.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// The NodePool's name.
    pub name: String,
    /// The machines that are declared by name.
    pub machines: Vec<Machine>,
    /// Machines by name and address.
    pub selector: Option<Selector>,
    /// How long a token lives.
    pub token_ttl: Duration,
    /// The rest of what machines need to join.
    pub bootstrap: Bootstrap,
    /// The user's settings of the kubelets.
    pub kubelet: Option<Map<String, Value>>,
    /// Labels of the Nodes.
    pub labels: BTreeMap<String, String>,
    /// Taints of the Nodes.
    pub taints: Vec<Taint>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
}

/// A machine that is declared by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The Node's name.
    pub name: String,
    /// Its addresses; at least one.
    pub addresses: Vec<IpAddr>,
    /// Where it stands.
    pub failure_domain: Option<String>,
    /// What the cloud calls it.
    pub provider_id: Option<String>,
}

/// Machines by name and address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The names, with `*` for any characters but a dot.
    pub name_pattern: String,
    /// The ranges of their addresses.
    pub address_cidrs: Vec<IpNet>,
}

impl Pool {
    /// Reads a pool of workers of this cluster; nothing if it is one of the control plane, whose machines are the
    /// ClusterSpec's.
    ///
    /// # Errors
    /// The first field that makes no sense.
    pub fn parse(name: &str, spec: &NodePoolSpec, cluster: &Cluster) -> Result<Option<Self>, FieldError> {
        if !is_dns_name(name) || name.contains('.') || name.len() > 50 {
            let message = format!("{name:?} must be a DNS label of at most 50 characters");
            return Err(FieldError::new("metadata.name", message));
        }
        if spec.machines.is_empty() && spec.selector.is_none() {
            let message = "declare machines, or a selector with namePattern and addressCIDRs: a pool with neither lets no machine in";
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
                return Err(FieldError::new("spec.kubelet", format!("{ours} has a place of its own: write {place}")));
            }
        }
        refuse_labels(&spec.labels, selector.is_some())?;
        for taint in &spec.taints {
            if !labels::is_key(&taint.key) || !labels::is_value(&taint.value) {
                let message = format!("{}={} is no taint: write one like example.com/gpu=true", taint.key, taint.value);
                return Err(FieldError::new("spec.taints", message));
            }
            if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&taint.effect.as_str()) {
                let message = format!("{} is no effect: write NoSchedule, PreferNoSchedule or NoExecute", taint.effect);
                return Err(FieldError::new("spec.taints", message));
            }
        }
        refuse_sysctls(&spec.sysctls)?;
        let bootstrap = spec.bootstrap.clone().unwrap_or_default();
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

    /// Whether a Node of that name is one of this pool's.
    #[must_use]
    pub fn has(&self, node: &str) -> bool {
        self.machine(node).is_some()
            || self.selector.as_ref().is_some_and(|selector| matches_pattern(&selector.name_pattern, node))
    }

    /// Whether machines of the pool join with a token. Those that a cluster with the layout `Systemd` lists by name have
    /// a certificate to begin with.
    #[must_use]
    pub fn joins_by_token(&self, cluster: &Cluster) -> bool {
        cluster.layout() == Layout::StaticPod || self.selector.is_some()
    }

    /// The declared machine of that name.
    #[must_use]
    pub fn machine(&self, node: &str) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.name == node)
    }

    /// The configuration of the pool's kubelets.
    #[must_use]
    pub fn kubelet_configuration(&self, cluster: &Cluster) -> Value {
        let mut configuration = configuration_of_machines(cluster, self.kubelet.as_ref());
        if !self.taints.is_empty() {
            let taint = |taint: &Taint| json!({"key": taint.key, "value": taint.value, "effect": taint.effect});
            configuration["registerWithTaints"] = self.taints.iter().map(taint).collect();
        }
        configuration
    }

    /// The labels of a machine's Node. Its failure domain says more than a zone that is said of the whole pool.
    #[must_use]
    pub fn node_labels(&self, machine: Option<&Machine>) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        if let Some(zone) = machine.and_then(|machine| machine.failure_domain.clone()) {
            labels.insert(ZONE_LABEL.to_owned(), zone);
        }
        labels
    }

    /// Of these labels those that the kubelet itself sets, as its flag has them.
    #[must_use]
    pub fn kubelet_labels(&self, machine: Option<&Machine>) -> String {
        let labels = self.node_labels(machine).into_iter().filter(|(key, _)| setter(key) == Setter::Kubelet);
        labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    }
}

impl Machine {
    /// The addresses that the kubelet reports: the first, and in a dual-stack cluster the first of the other family.
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
            return Err(FieldError::new(FIELD, format!("{name:?} is no lower-case DNS name, for example worker1")));
        }
        if cluster.nodes.iter().any(|node| node.name == name) {
            let message = format!("{name} is a control-plane node of the ClusterSpec: leave it out of this pool");
            return Err(FieldError::new(FIELD, message));
        }
        let field = || format!("{FIELD}[{name}].addresses");
        let parse = |text: &String| {
            text.parse::<IpAddr>().map_err(|_| FieldError::new(field(), format!("{text:?} is no IP address")))
        };
        let addresses = written.addresses.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(FieldError::new(field(), "is empty: write at least one address"));
        }
        for address in &addresses {
            if let Some(range) =
                cluster.service_cidrs.iter().chain(&cluster.pod_cidrs).find(|range| range.contains(address))
            {
                let message = format!("{address} lies in {range}, which is the cluster's own: choose another");
                return Err(FieldError::new(field(), message));
            }
            if let Some(node) = cluster.nodes.iter().find(|node| node.addresses.contains(address)) {
                return Err(FieldError::new(
                    field(),
                    format!("{address} is that of the control-plane node {}", node.name),
                ));
            }
        }
        for other in &machines {
            if other.name == name {
                return Err(FieldError::new(FIELD, format!("the name {name} is there twice")));
            }
            if let Some(address) = addresses.iter().find(|address| other.addresses.contains(address)) {
                return Err(FieldError::new(FIELD, format!("{address} is listed for {} and for {name}", other.name)));
            }
        }
        let zone = written.failure_domain.as_deref().unwrap_or("x");
        if zone.is_empty() || !labels::is_value(zone) {
            let message = format!("{zone:?} is no label's value, for example rack-3");
            return Err(FieldError::new(format!("{FIELD}[{name}].failureDomain"), message));
        }
        let id = written.provider_id.as_deref().unwrap_or("x://x");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~:/%@=+,-".contains(&byte);
        if id.split_once("://").is_none_or(|(provider, id)| provider.is_empty() || id.is_empty())
            || !id.bytes().all(plain)
        {
            let message = format!("{id:?} is no provider's id, for example aws:///eu-central-1a/i-0123456789abcdef0");
            return Err(FieldError::new(format!("{FIELD}[{name}].providerID"), message));
        }
        let (failure_domain, provider_id) = (written.failure_domain.clone(), written.provider_id.clone());
        machines.push(Machine { name, addresses, failure_domain, provider_id });
    }
    Ok(machines)
}

fn parse_selector(written: &keyplane_crds::MachineSelector) -> Result<Selector, FieldError> {
    let pattern = &written.name_pattern;
    // A star stands for any character: with a letter in its place the rest must be a name.
    if pattern.is_empty() || !is_dns_name(&pattern.replace('*', "a")) {
        let message = format!("{pattern:?} is no lower-case DNS name with * in it, for example worker-*");
        return Err(FieldError::new("spec.selector.namePattern", message));
    }
    let range = |text: &String| {
        let range = text.parse::<IpNet>().ok().filter(|range| range.trunc() == *range);
        let message = || format!("{text:?} is no range with its host bits zero, for example 10.0.1.0/24");
        range.ok_or_else(|| FieldError::new("spec.selector.addressCIDRs", message()))
    };
    let address_cidrs = written.address_cidrs.iter().map(range).collect::<Result<Vec<_>, _>>()?;
    if address_cidrs.is_empty() {
        return Err(FieldError::new("spec.selector.addressCIDRs", "is empty: write a range, for example 10.0.1.0/24"));
    }
    Ok(Selector { name_pattern: pattern.clone(), address_cidrs })
}

fn refuse_labels(written: &BTreeMap<String, String>, selector: bool) -> Result<(), FieldError> {
    let refuse = |message: String| Err(FieldError::new("spec.labels", message));
    for (key, value) in written {
        if !labels::is_key(key) || !labels::is_value(value) {
            return refuse(format!("{key}={value} is no label: write one like example.com/disk=ssd"));
        }
        match setter(key) {
            Setter::Nobody => return refuse(format!("{key} is not a pool's to set: use a prefix of your own")),
            Setter::Keyplane if selector => {
                return refuse(format!(
                    "a kubelet may not give itself {key}, and Keyplane sets it on machines that are declared by name \
                     only: list the machines in place of the selector, or leave it out"
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
                format!("{key:?} = {value:?} is no kernel parameter, for example net.core.somaxconn: \"4096\"");
            Err(FieldError::new("spec.sysctls", message))
        }
        None => Ok(()),
    }
}

fn parse_token_ttl(text: &str) -> Result<Duration, FieldError> {
    let range = Duration::from_mins(10)..=Duration::from_hours(720);
    let message = || format!("{text:?} is no duration from 10m to 720h, for example 24h");
    let parsed = parse_duration(text).ok().filter(|ttl| range.contains(ttl));
    parsed.ok_or_else(|| FieldError::new("spec.bootstrap.tokenTTL", message()))
}

fn refuse_bootstrap(bootstrap: Bootstrap) -> Result<Bootstrap, FieldError> {
    let field = "spec.bootstrap.downloads";
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~:/?%@&=+,{}-".contains(&byte);
    for Download { url, sha256 } in bootstrap.downloads.iter().flat_map(all) {
        if !(url.starts_with("https://") || url.starts_with("http://")) || !url.bytes().all(plain) {
            let message =
                format!("{url:?} is no URL: write one like https://files.corp.example/{{version}}/{{arch}}/kubelet");
            return Err(FieldError::new(field, message));
        }
        let Some(sha256) = sha256 else { continue };
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            let message =
                format!("{sha256:?} is no SHA-256: write 64 lower-case hexadecimal digits, as sha256sum prints them");
            return Err(FieldError::new(field, message));
        }
        if url.contains("{arch}") {
            let message = "a sha256 is that of one file: write the architecture in the url in place of {arch}, or leave sha256 out";
            return Err(FieldError::new(field, message));
        }
    }
    for entry in &bootstrap.hosts {
        if entry.address.parse::<IpAddr>().is_err()
            || entry.names.is_empty()
            || !entry.names.iter().all(|name| is_dns_name(name))
        {
            let message = format!("{} {} is no line for /etc/hosts", entry.address, entry.names.join(" "));
            return Err(FieldError::new("spec.bootstrap.hosts", message));
        }
    }
    Ok(bootstrap)
}

/// All that is downloaded.
pub(super) fn all(downloads: &Downloads) -> impl Iterator<Item = &Download> {
    let Downloads { kubelet, kubectl, containerd, runc, cni_plugins } = downloads;
    [kubelet, kubectl, containerd, runc, cni_plugins].into_iter().flatten()
}
