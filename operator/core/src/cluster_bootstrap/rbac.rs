//! The RBAC objects in the target cluster: those of kubeadm, and those of Keyplane.

use keyplane_crds::Layout;
use serde_json::{Value, json};

use crate::addons;
use crate::approval::{KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER};
use crate::join::{ADMISSION_POLICY, JOIN_ROLE};
use crate::model::Cluster;
use crate::pki::CaName;
use crate::target_objects::{BOOTSTRAPPERS, RBAC_GROUP, TargetObject, USER};

const NODES: &str = "system:nodes";
/// The ClusterRole and binding of Kubernetes the Hard Way for connections from the API server to kubelets.
const TO_KUBELET: &str = "system:kube-apiserver-to-kubelet";
const TO_KUBELET_BINDING: &str = "system:kube-apiserver";

/// Returns the desired RBAC objects. kubeadm's names are from its constants and `phases/bootstraptoken`,
/// `phases/uploadconfig`, `phases/kubelet`.
#[rustfmt::skip]
pub(super) fn objects(cluster: &Cluster, is_rotating: bool) -> Vec<TargetObject> {
    let mut objects = api_server_to_kubelet(cluster);
    objects.extend([
        cluster_role_binding("kubeadm:cluster-admins", "cluster-admin", &[group("kubeadm:cluster-admins")]),
        cluster_role_binding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", &[group(BOOTSTRAPPERS)]),
        cluster_role("kubeadm:get-nodes", &[rule("", &["nodes"], &[], &["get"])]),
        cluster_role_binding("kubeadm:get-nodes", "kubeadm:get-nodes", &[group(BOOTSTRAPPERS)]),
    ]);
    if !cluster.policy.requests.approves_clients() {
        objects.extend(auto_approval());
    }
    objects.extend([
        role("kube-system", "kubeadm:kubelet-config", &[rule("", &["configmaps"], &["kubelet-config"], &["get"])]),
        role_binding("kube-system", "kubeadm:kubelet-config", &[group(NODES), group(BOOTSTRAPPERS)]),
        role("kube-system", "kubeadm:nodes-kubeadm-config", &[rule("", &["configmaps"], &["kubeadm-config"], &["get"])]),
        role_binding("kube-system", "kubeadm:nodes-kubeadm-config", &[group(BOOTSTRAPPERS), group(NODES)]),
        role("kube-public", "kubeadm:bootstrap-signer-clusterinfo", &[rule("", &["configmaps"], &["cluster-info"], &["get"])]),
        role_binding("kube-public", "kubeadm:bootstrap-signer-clusterinfo", &[user("system:anonymous")]),
        cluster_role(USER, &own_rules(cluster, is_rotating)),
        cluster_role_binding(USER, USER, &[user(USER)]),
        role("kube-system", USER, &kube_system_rules(cluster, is_rotating)),
        role_binding("kube-system", USER, &[user(USER)]),
        role("kube-public", USER, &[rule("", &["configmaps"], &["cluster-info"], &["get", "patch"])]),
        role_binding("kube-public", USER, &[user(USER)]),
    ]);
    objects
}

/// Returns kubeadm's bindings by which the controller-manager approves kubelet client certificates for every bootstrap
/// token and every node. If Keyplane approves these CSRs, the bindings would bypass its decisions.
#[rustfmt::skip]
pub(super) fn auto_approval() -> Vec<TargetObject> {
    vec![
        cluster_role_binding("kubeadm:node-autoapprove-bootstrap", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", &[group(BOOTSTRAPPERS)]),
        cluster_role_binding("kubeadm:node-autoapprove-certificate-rotation", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", &[group(NODES)]),
    ]
}

/// Returns the permissions of the API server on kubelets, for example for logs: kubeadm's binding of a default
/// ClusterRole, or the ClusterRole of Kubernetes the Hard Way, each under its usual name.
#[rustfmt::skip]
fn api_server_to_kubelet(cluster: &Cluster) -> Vec<TargetObject> {
    let client = [user("kube-apiserver-kubelet-client")];
    match cluster.layout() {
        Layout::StaticPod => vec![cluster_role_binding("kubeadm:apiserver-kubelet-client", "system:kubelet-api-admin", &client)],
        Layout::Systemd => vec![
            cluster_role(TO_KUBELET, &[rule("", &["nodes/proxy", "nodes/stats", "nodes/log", "nodes/spec", "nodes/metrics"], &[], &["*"])]),
            cluster_role_binding(TO_KUBELET_BINDING, TO_KUBELET, &client),
        ],
    }
}

/// Returns the rules of Keyplane's Role in kube-system.
fn kube_system_rules(cluster: &Cluster, is_rotating: bool) -> Vec<Value> {
    let configurations = rule("", &["configmaps"], &["kubeadm-config", "kubelet-config"], &["get", "patch"]);
    let pods = rule("", &["pods"], &[], &["get", "list", "watch"]);
    let authentication = rule("", &["configmaps"], &["extension-apiserver-authentication"], &["get", "patch"]);
    let authentication = is_rotating.then_some(authentication);
    [configurations, pods]
        .into_iter()
        .chain(authentication)
        .chain(addons::rights(cluster).0.iter().map(addon_rule))
        .collect()
}

fn addon_rule(right: &addons::Rule) -> Value {
    let names: Vec<_> = right.names.iter().map(String::as_str).collect();
    rule(&right.group, &[&right.resource], &names, &right.verbs)
}

/// Returns the rules of Keyplane's ClusterRole: approve CSRs of kubelets, read Nodes, label control-plane Nodes, and
/// read and apply the objects that Keyplane manages, add-ons included.
fn own_rules(cluster: &Cluster, is_rotating: bool) -> Vec<Value> {
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
    let mut cluster_roles = vec!["kubeadm:get-nodes", USER, JOIN_ROLE];
    let to_kubelet = match cluster.layout() {
        Layout::StaticPod => "kubeadm:apiserver-kubelet-client",
        Layout::Systemd => {
            cluster_roles.push(TO_KUBELET);
            TO_KUBELET_BINDING
        }
    };
    let cluster_role_bindings = [
        "kubeadm:cluster-admins",
        to_kubelet,
        "kubeadm:kubelet-bootstrap",
        "kubeadm:get-nodes",
        "kubeadm:node-autoapprove-bootstrap",
        "kubeadm:node-autoapprove-certificate-rotation",
        USER,
        JOIN_ROLE,
    ];
    let roles = [
        "kubeadm:kubelet-config",
        "kubeadm:nodes-kubeadm-config",
        "kubeadm:bootstrap-signer-clusterinfo",
        USER,
        JOIN_ROLE,
    ];
    let policies = ["validatingadmissionpolicies", "validatingadmissionpolicybindings"];
    let mut signers = vec![KUBELET_SERVING_SIGNER];
    if cluster.policy.requests.approves_clients() {
        signers.push(KUBELET_CLIENT_SIGNER);
    }
    let mut rules = vec![
        rule("certificates.k8s.io", &["certificatesigningrequests"], &[], &["get", "list", "watch"]),
        rule("certificates.k8s.io", &["certificatesigningrequests/approval"], &[], &["patch", "update"]),
        rule("certificates.k8s.io", &["signers"], &signers, &["approve"]),
        rule("", &["nodes"], &[], &["get", "list", "watch"]),
        rule(RBAC_GROUP, &["clusterroles"], &cluster_roles, &["get"]),
        rule(RBAC_GROUP, &["clusterrolebindings"], &cluster_role_bindings, &["get"]),
        rule(RBAC_GROUP, &["roles", "rolebindings"], &roles, &["get"]),
        rule("admissionregistration.k8s.io", &policies, &[ADMISSION_POLICY], &["get"]),
    ];
    if is_rotating {
        // The progress of a rotation: a list limited to this name, in all namespaces.
        rules.push(rule("", &["configmaps"], &["kube-root-ca.crt"], &["list"]));
        rules.push(json!({"nonResourceURLs": ["/openid/v1/jwks"], "verbs": ["get"]}));
    }
    if cluster.external_cas.contains(&CaName::Cluster) {
        // The controller-manager signs no CSRs: Keyplane writes the certificates of the external signer into their
        // status.
        rules.push(rule("certificates.k8s.io", &["certificatesigningrequests/status"], &[], &["patch"]));
        let both = [KUBELET_SERVING_SIGNER, KUBELET_CLIENT_SIGNER];
        rules.push(rule("certificates.k8s.io", &["signers"], &both, &["sign"]));
    }
    rules.extend(addons::rights(cluster).1.iter().map(addon_rule));
    rules.extend(encryption_rules(cluster));
    if cluster.spec.control_plane.register_nodes {
        rules.push(rule("", &["nodes"], &nodes, &["patch"]));
    }
    rules
}

/// Returns the rules for encryption at rest: read the loaded configuration from the metrics of API servers, and list
/// and patch objects while they are re-encrypted. The verb `list` allows reading whole objects, but Keyplane requests
/// only metadata.
fn encryption_rules(cluster: &Cluster) -> Vec<Value> {
    let encryption = &cluster.encryption_use;
    if !encryption.configured {
        return vec![];
    }
    let metrics = json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"]});
    let reencrypted = encryption.reencrypted.iter().map(|resource| {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        rule(group, &[plural], &[], &["list", "patch"])
    });
    std::iter::once(metrics).chain(reencrypted).collect()
}

fn rule(group: &str, resources: &[&str], names: &[&str], verbs: &[&str]) -> Value {
    let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    if !names.is_empty() {
        rule["resourceNames"] = json!(names);
    }
    rule
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "apiGroup": RBAC_GROUP, "name": name})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "apiGroup": RBAC_GROUP, "name": name})
}

fn cluster_role(name: &str, rules: &[Value]) -> TargetObject {
    TargetObject::new(RBAC_GROUP, "ClusterRole", None, name, json!({"rules": rules}))
}

fn role(namespace: &str, name: &str, rules: &[Value]) -> TargetObject {
    TargetObject::new(RBAC_GROUP, "Role", Some(namespace), name, json!({"rules": rules}))
}

fn cluster_role_binding(name: &str, role: &str, subjects: &[Value]) -> TargetObject {
    let reference = json!({"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role});
    TargetObject::new(RBAC_GROUP, "ClusterRoleBinding", None, name, json!({"roleRef": reference, "subjects": subjects}))
}

fn role_binding(namespace: &str, name: &str, subjects: &[Value]) -> TargetObject {
    let reference = json!({"apiGroup": RBAC_GROUP, "kind": "Role", "name": name});
    let content = json!({"roleRef": reference, "subjects": subjects});
    TargetObject::new(RBAC_GROUP, "RoleBinding", Some(namespace), name, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EncryptionUse, Policy};

    fn cluster(policy: &str) -> Cluster {
        let spec = "{kubernetesVersion: v1.37.2, controlPlaneEndpoint: {host: api.demo.example}, \
                    controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}]}, network: {podCIDRs: [10.244.0.0/16]}}";
        let policy = Policy::parse(&serde_saphyr::from_str(policy).unwrap()).unwrap();
        Cluster::parse("demo", "default", &serde_saphyr::from_str(spec).unwrap(), policy).unwrap()
    }

    fn auto_approved(cluster: &Cluster) -> bool {
        objects(cluster, false).iter().any(|object| object.describe().contains("node-autoapprove"))
    }

    fn may_approve_clients(cluster: &Cluster) -> bool {
        own_rules(cluster, false).iter().any(|rule| {
            rule["verbs"] == json!(["approve"])
                && rule["resourceNames"].as_array().is_some_and(|names| names.contains(&json!(KUBELET_CLIENT_SIGNER)))
        })
    }

    #[test]
    fn may_list_and_patch_objects_only_during_reencryption() {
        let rights = |configured, reencrypted: &[&str]| {
            let reencrypted = reencrypted.iter().map(|resource| (*resource).to_owned()).collect();
            encryption_rules(&cluster("{}").with_encryption(EncryptionUse { configured, reencrypted }))
        };
        assert_eq!(rights(false, &[]), Vec::<Value>::new());
        let metrics = json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"]});
        assert_eq!(rights(true, &[]), std::slice::from_ref(&metrics));
        let of = |group: &str, plural: &str| json!({"apiGroups": [group], "resources": [plural], "verbs": ["list", "patch"]});
        let expected = [metrics, of("", "secrets"), of("example.com", "widgets")];
        assert_eq!(rights(true, &["secrets", "widgets.example.com"]), expected);
    }

    #[test]
    fn may_sign_only_with_external_cluster_ca() {
        let signs = |cluster: &Cluster| own_rules(cluster, false).iter().any(|rule| rule["verbs"] == json!(["sign"]));
        assert!(!signs(&cluster("{}")));
        assert!(!signs(&cluster("{}").with_external_cas([CaName::Etcd].into())));
        assert!(signs(&cluster("{}").with_external_cas([CaName::Cluster].into())));
    }

    #[test]
    fn either_controller_manager_or_keyplane_approves_client_csrs() {
        for (policy, ours) in [
            ("{}", false),
            ("{kubeletClient: {enabled: true}}", true),
            ("{kubeletClient: {enabled: true, dryRun: true}}", false),
        ] {
            let cluster = cluster(policy);
            assert_eq!((may_approve_clients(&cluster), auto_approved(&cluster)), (ours, !ours), "{policy}");
        }
    }
}
