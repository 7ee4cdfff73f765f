//! An agent's objects in the management cluster: identity, permissions, Lease, and bootstrap Secret.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{NodeAgent, keys};

use crate::agent_access::settings::{DEFAULT_FILE, FileSettings};
use crate::host_files::File;
use crate::model::Cluster;
use crate::names::{self, INDEX_KEY, MANAGED_BY, MANAGED_BY_LABEL, node_config_map, node_secret};
use crate::objects::{IndexEntry, index, is_ours, secret, text};
use crate::yaml;

/// The path of the token on the node.
const TOKEN_FILE: &str = "/etc/keyplane/token";

/// The path of the management cluster's CA bundle on the node.
const CA_FILE: &str = "/etc/keyplane/ca.crt";

/// The path of the agent's systemd unit.
const UNIT_FILE: &str = "/etc/systemd/system/keyplane-node.service";

/// The agent's systemd unit. systemd does not start it before its settings file exists.
const UNIT: &str = "[Unit]
Description=Keyplane's agent, which carries this machine's keys and files to it
Wants=network-online.target
After=network-online.target
ConditionPathExists=/etc/keyplane/node.yaml

[Service]
ExecStart=/usr/local/bin/keyplane node
Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
";

/// The permanent objects of one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentObjects {
    /// The identity.
    pub service_account: ServiceAccount,
    /// The permissions.
    pub role: Role,
    /// The binding of the Role.
    pub binding: RoleBinding,
    /// The Lease with its report.
    pub lease: Lease,
}

/// Returns the objects of a node's agent in the management cluster.
#[must_use]
pub fn agent_objects(cluster: &Cluster, node: &str) -> AgentObjects {
    let name = names::agent_service_account(&cluster.name, node);
    let subject = Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.clone(),
        namespace: Some(cluster.namespace.clone()),
        ..Subject::default()
    };
    AgentObjects {
        service_account: ServiceAccount {
            metadata: metadata(cluster, node, name.clone()),
            // The token is on the node; no Pod needs it.
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        role: Role { metadata: metadata(cluster, node, name.clone()), rules: Some(rules(cluster, node)) },
        binding: RoleBinding {
            metadata: metadata(cluster, node, name.clone()),
            role_ref: RoleRef {
                api_group: Some("rbac.authorization.k8s.io".to_owned()),
                kind: "Role".to_owned(),
                name,
            },
            subjects: Some(vec![subject]),
        },
        lease: Lease { metadata: metadata(cluster, node, names::agent_lease(&cluster.name, node)), ..Lease::default() },
    }
}

/// Returns the rules of the Role. Each rule allows one object by name: a list or watch has to select that name.
fn rules(cluster: &Cluster, node: &str) -> Vec<PolicyRule> {
    let rule = |group: &str, resource: &str, name: String, verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        resource_names: Some(vec![name]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    };
    let read = ["get", "list", "watch"];
    let (account, lease) = (names::agent_service_account(&cluster.name, node), names::agent_lease(&cluster.name, node));
    vec![
        rule("", "secrets", node_secret(&cluster.name, node), &read),
        rule("", "configmaps", node_config_map(&cluster.name, node), &read),
        rule("coordination.k8s.io", "leases", lease, &["get", "update"]),
        rule("", "serviceaccounts/token", account, &["create"]),
    ]
}

fn metadata(cluster: &Cluster, node: &str, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(BTreeMap::from([
            (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
            (keys::CLUSTER_LABEL.to_owned(), cluster.name.clone()),
            (keys::NODE_LABEL.to_owned(), node.to_owned()),
        ])),
        ..ObjectMeta::default()
    }
}

/// Returns whether the object belongs to this node's agent.
#[must_use]
pub fn is_of_agent(found: &ObjectMeta, cluster: &str, node: &str) -> bool {
    is_ours(found, cluster, (keys::NODE_LABEL, node))
}

/// Returns the bootstrap Secret without its token: the token is bound to this object, so the Secret has to exist first.
#[must_use]
pub fn bootstrap(cluster: &Cluster, agent: &NodeAgent, ca_bundle: &str, node: &str, pool: Option<&str>) -> Secret {
    let settings = FileSettings {
        management_server: Some(agent.management_server.clone()),
        certificate_authority: Some(CA_FILE.to_owned()),
        token: Some(TOKEN_FILE.to_owned()),
        namespace: Some(cluster.namespace.clone()),
        cluster: Some(cluster.name.clone()),
        node: Some(node.to_owned()),
    };
    let entries = [
        IndexEntry::new("ca.crt", CA_FILE, 0o644),
        IndexEntry::new("token", TOKEN_FILE, 0o600),
        IndexEntry::new("keyplane-node.service", UNIT_FILE, 0o644),
        // The settings file comes last: the unit waits for it.
        IndexEntry::new("node.yaml", DEFAULT_FILE, 0o644),
    ];
    let data = BTreeMap::from([
        (INDEX_KEY.to_owned(), index(&entries)),
        ("ca.crt".to_owned(), ca_bundle.to_owned()),
        ("keyplane-node.service".to_owned(), UNIT.to_owned()),
        ("node.yaml".to_owned(), yaml::write(&serde_json::json!(settings))),
    ]);
    let mut object = secret(cluster, names::agent_bootstrap_secret(&cluster.name, node), None, "Opaque", data, []);
    let labels = object.metadata.labels.get_or_insert_default();
    labels.insert(keys::NODE_LABEL.to_owned(), node.to_owned());
    labels.insert(keys::AGENT_BOOTSTRAP_LABEL.to_owned(), "true".to_owned());
    // The NodePool controller watches this label to update the join data.
    labels.extend(pool.map(|pool| (keys::NODE_POOL_LABEL.to_owned(), pool.to_owned())));
    object
}

/// Adds the token to the bootstrap Secret.
#[must_use]
pub fn with_token(mut object: Secret, token: String, expires: Timestamp) -> Secret {
    object.data.get_or_insert_default().insert("token".to_owned(), k8s_openapi::ByteString(token.into_bytes()));
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.insert(keys::TOKEN_EXPIRES_ANNOTATION.to_owned(), expires.to_string());
    object
}

/// Returns the files in a bootstrap Secret; `None` until its token is stored.
#[must_use]
pub fn agent_files(object: &Secret) -> Option<Vec<File>> {
    let index: Vec<IndexEntry> = serde_json::from_str(text(object, INDEX_KEY)?).ok()?;
    let file = |entry: IndexEntry| {
        let content = text(object, &entry.key)?.to_owned();
        // A here-document ends with a newline.
        let content = if content.ends_with('\n') { content } else { format!("{content}\n") };
        Some(File::new(entry.key, entry.path, u32::from_str_radix(&entry.mode, 8).ok()?, content))
    };
    index.into_iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Policy;
    use crate::objects::to_write;

    fn cluster() -> Cluster {
        let spec = serde_saphyr::from_str(
            "{kubernetesVersion: v1.37.2, controlPlaneEndpoint: {host: api.demo.example},
              controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}]}}",
        );
        Cluster::parse("demo", "fleet", &spec.unwrap(), Policy::default()).unwrap()
    }

    #[test]
    fn role_allows_only_the_agents_own_objects() {
        let objects = agent_objects(&cluster(), "cp1");
        let rules: Vec<_> = objects
            .role
            .rules
            .unwrap()
            .into_iter()
            .map(|rule| {
                let names = rule.resource_names.unwrap_or_default();
                assert_eq!(names.len(), 1, "{names:?}");
                format!("{} {} {}", rule.resources.unwrap().join(","), names[0], rule.verbs.join(","))
            })
            .collect();
        assert_eq!(
            rules,
            [
                "secrets demo-cp1-pki get,list,watch",
                "configmaps demo-cp1-config get,list,watch",
                "leases demo-cp1 get,update",
                "serviceaccounts/token demo-cp1-agent create",
            ]
        );
        assert_eq!(objects.binding.subjects.unwrap()[0].namespace.as_deref(), Some("fleet"));
        assert_eq!(objects.service_account.automount_service_account_token, Some(false));
    }

    #[test]
    fn bootstrap_secret_contains_all_files_of_the_agent() {
        let agent = NodeAgent { management_server: "https://m:6443".to_owned(), certificate_authority: None };
        let object = bootstrap(&cluster(), &agent, "CA", "cp1", Some("workers"));
        assert!(agent_files(&object).is_none(), "it has no token yet");
        assert!(is_of_agent(&object.metadata, "demo", "cp1") && !is_of_agent(&object.metadata, "demo", "cp2"));
        let expires: Timestamp = "2026-11-23T13:00:00Z".parse().unwrap();
        let object = with_token(object, "t".to_owned(), expires);
        assert_eq!(
            agent_files(&object).unwrap().iter().map(|file| file.mode).collect::<Vec<_>>(),
            [0o644, 0o600, 0o644, 0o644]
        );
        let data = object.data.unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        let settings: FileSettings = serde_saphyr::from_str(&text("node.yaml")).unwrap();
        let settings = settings.complete().unwrap();
        assert_eq!((settings.node.as_str(), settings.token.as_str()), ("cp1", TOKEN_FILE));
        let index: Vec<IndexEntry> = serde_json::from_str(&text(INDEX_KEY)).unwrap();
        assert!(index.iter().all(|entry| data.contains_key(&entry.key)), "{index:?}");
        assert_eq!(index.last().unwrap().path, DEFAULT_FILE);
    }

    #[test]
    fn writes_only_differences_and_keeps_foreign_labels() {
        let wanted = agent_objects(&cluster(), "cp1").role;
        let same = |a: &Role, b: &Role| a.rules == b.rules;
        assert!(to_write(None, wanted.clone(), same).is_some());
        let mut found = wanted.clone();
        found.metadata.resource_version = Some("7".to_owned());
        found.metadata.labels.as_mut().unwrap().insert("theirs".to_owned(), "x".to_owned());
        assert_eq!(to_write(Some(&found), wanted.clone(), same), None);
        found.rules = None;
        let written = to_write(Some(&found), wanted, same).unwrap();
        assert_eq!(written.metadata.resource_version.as_deref(), Some("7"));
        assert!(written.metadata.labels.unwrap().contains_key("theirs") && written.rules.is_some());
    }
}
