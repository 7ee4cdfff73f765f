//! The real helm, and Keyplane's charts.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::audit::Request;
use crate::command;
use crate::kubectl::{Kubectl, documents};
use crate::oracle::objects;
use crate::parts::Parts;

/// The chart of Keyplane itself.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/keyplane");

/// The chart of its kinds.
pub const KINDS_CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/keyplane-crds");

/// The kinds of an RBAC rule's object and of the objects that give it to somebody.
const RULES: [&str; 2] = ["ClusterRole", "Role"];
const BINDINGS: [&str; 2] = ["ClusterRoleBinding", "RoleBinding"];

/// helm, perhaps with a cluster to work in.
#[derive(Clone, Debug)]
pub struct Helm {
    program: PathBuf,
    home: PathBuf,
    kubeconfig: Option<PathBuf>,
}

impl Helm {
    /// helm without a cluster.
    ///
    /// # Errors
    /// When it is not built.
    pub fn new(parts: &Parts) -> Result<Self> {
        let home = parts.cache().join("helm-home");
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        Ok(Self { program: parts.set("helm")?.join("helm"), home, kubeconfig: None })
    }

    /// helm in the cluster of this kubectl, as its user.
    ///
    /// # Errors
    /// As [`Helm::new`].
    pub fn of(parts: &Parts, kubectl: &Kubectl) -> Result<Self> {
        Ok(Self { kubeconfig: Some(kubectl.kubeconfig().to_owned()), ..Self::new(parts)? })
    }

    /// Runs it and returns its standard output.
    ///
    /// # Errors
    /// When it fails; the message holds its words.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut helm = Command::new(&self.program);
        // Nothing of the user's own plugins, repositories and caches.
        for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(folder, &self.home);
        }
        helm.env_remove("KUBECONFIG");
        if let Some(kubeconfig) = &self.kubeconfig {
            helm.env("KUBECONFIG", kubeconfig);
        }
        command::run(helm.args(arguments))
    }

    /// The objects of Keyplane's chart, as a release `keyplane` in this namespace with these values.
    ///
    /// # Errors
    /// When the chart refuses the values.
    pub fn template(&self, namespace: &str, values: &[&str]) -> Result<Vec<Value>> {
        let set: Vec<_> = values.iter().flat_map(|value| ["--set-json", value]).collect();
        let line = ["template", "keyplane", CHART, "--namespace", namespace];
        objects(&self.run(&[&line[..], &set].concat())?)
    }
}

/// Gives a user of a cluster the rights that the chart gives its ServiceAccount.
///
/// # Errors
/// When the cluster refuses them.
pub fn bind(admin: &Kubectl, rendered: &[Value], user: &str) -> Result<()> {
    let mut granted = vec![];
    for object in rendered {
        let mut object = object.clone();
        let kind = object["kind"].as_str().unwrap_or_default();
        if BINDINGS.contains(&kind) {
            object["subjects"] = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]);
        } else if !RULES.contains(&kind) {
            continue;
        }
        granted.push(object);
    }
    admin.apply(&documents(&granted)).map(|_| ())
}

/// One right: a verb on one kind of objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Where; empty means in all namespaces and in none.
    pub namespace: String,
    /// The API group, empty for the core.
    pub group: String,
    /// The resource, with its subresource after a slash.
    pub resource: String,
    /// The only object; empty means any.
    pub name: String,
    /// What may be done.
    pub verb: String,
}

impl Right {
    /// Whether the request needed it, and got what it asked for or was told that there is no such thing.
    #[must_use]
    pub fn was_used_by(&self, request: &Request) -> bool {
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        request.code < 400
            && self.group == request.group
            && self.resource == request.resource
            && self.verb == request.verb
            && fits(&self.namespace, &request.namespace)
            && fits(&self.name, &request.name)
    }
}

/// Every single right in the rules of these objects.
///
/// # Errors
/// When a rule is written in a way that this does not know, such as with non-resource paths.
pub fn rights(rendered: &[Value]) -> Result<BTreeSet<Right>> {
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut found = BTreeSet::new();
    for object in rendered.iter().filter(|object| object["kind"].as_str().is_some_and(|kind| RULES.contains(&kind))) {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        for rule in object["rules"].as_array().context("a role without rules")? {
            let known = ["apiGroups", "resources", "resourceNames", "verbs"];
            let strange = rule.as_object().context("no rule")?.keys().find(|key| !known.contains(&key.as_str()));
            ensure!(strange.is_none(), "a rule with {strange:?}");
            let mut names = words(&rule["resourceNames"]);
            if names.is_empty() {
                names.push(String::new());
            }
            for group in words(&rule["apiGroups"]) {
                for resource in words(&rule["resources"]) {
                    for verb in words(&rule["verbs"]) {
                        found.extend(names.iter().map(|name| Right {
                            namespace: namespace.to_owned(),
                            group: group.clone(),
                            resource: resource.clone(),
                            name: name.clone(),
                            verb: verb.clone(),
                        }));
                    }
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role() -> Value {
        json!({"kind": "Role", "metadata": {"name": "a", "namespace": "n"}, "rules": [
            {"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["get", "create"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["l"], "verbs": ["get"]},
        ]})
    }

    #[test]
    fn a_rule_is_taken_apart_into_single_rights() {
        let found = rights(&[role(), json!({"kind": "Service"})]).unwrap();
        assert_eq!(found.len(), 5);
        let lease = found.iter().find(|right| right.resource == "leases").unwrap();
        assert_eq!((lease.namespace.as_str(), lease.name.as_str(), lease.verb.as_str()), ("n", "l", "get"));
        let strange = json!({"kind": "ClusterRole", "rules": [{"nonResourceURLs": ["/"], "verbs": ["get"]}]});
        assert!(rights(&[strange]).is_err());
    }

    #[test]
    fn a_right_is_used_by_its_own_request_and_no_other() {
        let right = rights(&[role()]).unwrap().into_iter().find(|right| right.resource == "leases").unwrap();
        let request = Request {
            user: "u".to_owned(),
            verb: "get".to_owned(),
            group: "coordination.k8s.io".to_owned(),
            resource: "leases".to_owned(),
            namespace: "n".to_owned(),
            name: "l".to_owned(),
            code: 200,
        };
        assert!(right.was_used_by(&request));
        assert!(!right.was_used_by(&Request { name: "m".to_owned(), ..request.clone() }));
        assert!(!right.was_used_by(&Request { namespace: "m".to_owned(), ..request.clone() }));
        assert!(!right.was_used_by(&Request { code: 403, ..request }));
    }
}
