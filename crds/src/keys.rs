//! The keys of Keyplane's labels, annotations and finalizers. They are defined in this file only.
//!
//! `docs/reference/labels-and-annotations.md` is the page for people; a test holds it against [`KEYS`].

/// Label: the name of the `ClusterSpec` that an object belongs to, in the same namespace.
pub const CLUSTER_LABEL: &str = "keyplane.io/cluster";
/// Label: the name of the node that an object is for.
pub const NODE_LABEL: &str = "keyplane.io/node";
/// Label: the name of the `NodePool` that an object belongs to.
pub const NODE_POOL_LABEL: &str = "keyplane.io/node-pool";
/// Label: the name of the user in `spec.users` that a kubeconfig is for.
pub const USER_LABEL: &str = "keyplane.io/user";
/// Label: the CA that is to sign the request in a ConfigMap.
pub const SIGNING_REQUEST_LABEL: &str = "keyplane.io/signing-request";
/// Label: the CSR in the target cluster that a request in a ConfigMap represents.
pub const KUBELET_CSR_LABEL: &str = "keyplane.io/kubelet-csr";
/// Label: identifies the Secret with the first credential of an agent.
pub const AGENT_BOOTSTRAP_LABEL: &str = "keyplane.io/agent-bootstrap";

/// Annotation: confirms the deletion of a cluster's keys. Its value is the name of the `ClusterSpec`.
pub const CONFIRM_DELETION_ANNOTATION: &str = "keyplane.io/confirm-deletion";
/// Annotation: with the value [`AT_ONCE`](crate::AT_ONCE), changed static pods are written for all nodes at once, without
/// waiting. For a control plane that is down and that a changed spec would repair.
pub const ROLLOUT_ANNOTATION: &str = "keyplane.io/rollout";
/// Annotation: with the value `true`, no missing Secret is generated, because a backup brings it. With `false`, keys are
/// generated although the nodes seem to run a cluster already.
pub const RESTORE_ANNOTATION: &str = "keyplane.io/restore";
/// Annotation: requests new keys and certificates, like `spec.rotate.certificates`.
pub const ROTATE_CERTIFICATES_ANNOTATION: &str = "keyplane.io/rotate-certificates";
/// Annotation: requests new CAs, like `spec.rotate.certificateAuthorities`.
pub const ROTATE_CERTIFICATE_AUTHORITIES_ANNOTATION: &str = "keyplane.io/rotate-certificate-authorities";
/// Annotation: requests a renewal of the CAs, like `spec.rotate.renewCertificateAuthorities`.
pub const RENEW_CERTIFICATE_AUTHORITIES_ANNOTATION: &str = "keyplane.io/renew-certificate-authorities";
/// Annotation: requests a new key for service-account tokens, like `spec.rotate.serviceAccountKey`.
pub const ROTATE_SERVICE_ACCOUNT_KEY_ANNOTATION: &str = "keyplane.io/rotate-service-account-key";
/// Annotation: requests a new key for encryption at rest, like `spec.rotate.encryptionKey`.
pub const ROTATE_ENCRYPTION_KEY_ANNOTATION: &str = "keyplane.io/rotate-encryption-key";
/// Annotation: approves the completion of a rotation, like `spec.rotate.complete`.
pub const COMPLETE_ROTATION_ANNOTATION: &str = "keyplane.io/complete-rotation";
/// Annotation: rolls a rotation back, like `spec.rotate.rollBack`.
pub const ROLL_BACK_ROTATION_ANNOTATION: &str = "keyplane.io/roll-back-rotation";
/// Annotation: requests the revocation of the CAs, like `spec.rotate.revoke.certificateAuthorities`.
pub const REVOKE_CERTIFICATE_AUTHORITIES_ANNOTATION: &str = "keyplane.io/revoke-certificate-authorities";
/// Annotation: requests the revocation of the key for service-account tokens, like `spec.rotate.revoke.serviceAccountKey`.
pub const REVOKE_SERVICE_ACCOUNT_KEY_ANNOTATION: &str = "keyplane.io/revoke-service-account-key";
/// Annotation: confirms a revocation, like `spec.rotate.revoke.confirm`.
pub const CONFIRM_REVOCATION_ANNOTATION: &str = "keyplane.io/confirm-revocation";

/// Annotation: the earliest expiry of a certificate in the object (RFC 3339).
pub const NOT_AFTER_ANNOTATION: &str = "keyplane.io/not-after";
/// Annotation: the SHA-256 of the CAs that signed the certificates in the object.
pub const ISSUER_CHECKSUM_ANNOTATION: &str = "keyplane.io/issuer-checksum";
/// Annotation: the SHA-256 of the object's data.
pub const CONTENT_CHECKSUM_ANNOTATION: &str = "keyplane.io/content-checksum";
/// Annotation: the content checksum that somebody has applied to the node by hand.
pub const APPLIED_CHECKSUM_ANNOTATION: &str = "keyplane.io/applied-checksum";
/// Annotation: the SHA-256 of the trust bundle in the ConfigMap of a worker node.
pub const TRUST_CHECKSUM_ANNOTATION: &str = "keyplane.io/trust-checksum";
/// Annotation: the stage of the encryption key's rotation, or `Completed`.
pub const ROTATION_STAGE_ANNOTATION: &str = "keyplane.io/rotation-stage";
/// Annotation: the state of the rotation of a CA or key, as JSON.
pub const ROTATION_STATE_ANNOTATION: &str = "keyplane.io/rotation-state";
/// Prefix of annotations that record the last request that a Secret answers. The source of the request follows, for example
/// `spec`.
pub const ROTATED_BY_PREFIX: &str = "keyplane.io/rotated-by-";
/// Annotation: the SHA-256 of the certificates of revoked CAs, the last one first, with commas.
pub const REVOKED_CAS_ANNOTATION: &str = "keyplane.io/revoked-cas";
/// Annotation: identifies the Secret of an external CA, which has no key. Without the annotation, a missing key is lost.
pub const EXTERNAL_CA_ANNOTATION: &str = "keyplane.io/external-ca";
/// Annotation: when a certificate was requested (RFC 3339).
pub const REQUESTED_AT_ANNOTATION: &str = "keyplane.io/requested-at";
/// Annotation: when the token in the object expires (RFC 3339).
pub const TOKEN_EXPIRES_ANNOTATION: &str = "keyplane.io/token-expires";
/// Annotation: the fingerprint of the CA that the kubelet's certificates must come from. It is set once the cluster CA is
/// rotated; before that, the kubelet's own renewal is enough.
pub const KUBELET_CA_ANNOTATION: &str = "keyplane.io/kubelet-ca";
/// Annotation: etcd's `--initial-cluster-state` and `--initial-cluster` on a node.
pub const ETCD_INITIAL_CLUSTER_ANNOTATION: &str = "keyplane.io/etcd-initial-cluster";
/// Annotation: the state of the node's etcd member at the time of these flags.
pub const ETCD_MEMBER_ANNOTATION: &str = "keyplane.io/etcd-member";
/// Annotation: permits the restart that an agent waits for; its value names that restart. While the annotation is set, an
/// agent restarts nothing without a permit.
pub const RESTART_PERMIT_ANNOTATION: &str = "keyplane.io/restart-permit";
/// Prefix of annotations that restart a component when their value changes. The component's name follows.
pub const RESTART_CHECKSUM_PREFIX: &str = "keyplane.io/restart-checksum.";
/// Annotation: the restart checksum of etcd. On a node with an agent it is not in the manifest. The agent restarts etcd in
/// place, once the annotation of the node's ConfigMap permits it.
pub const ETCD_RESTART_ANNOTATION: &str = "keyplane.io/restart-checksum.etcd";
/// Annotation: the report of an agent, as JSON. Nothing in it is secret.
pub const AGENT_REPORT_ANNOTATION: &str = "keyplane.io/agent-report";
/// Annotation: the SHA-256 of the files that an API server reads only at its start. The kubelet restarts a static pod when
/// its manifest changes.
pub const CONFIG_CHECKSUM_ANNOTATION: &str = "keyplane.io/config-checksum";
/// Annotation: the configuration of Flannel, which reads it only at its start.
pub const NETWORK_CHECKSUM_ANNOTATION: &str = "keyplane.io/network-checksum";
/// Annotation: with the value `true`, an object of an add-on is the user's own. Keyplane neither changes nor deletes it.
pub const UNMANAGED_ANNOTATION: &str = "keyplane.io/unmanaged";

/// Finalizer: holds a `ClusterSpec` until its Secrets and ConfigMaps are deleted.
pub const CLUSTERSPEC_FINALIZER: &str = "keyplane.io/clusterspec-cleanup";
/// Finalizer: holds a `NodePool` until its token is revoked and its objects are deleted.
pub const NODEPOOL_FINALIZER: &str = "keyplane.io/nodepool-cleanup";

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A label.
    Label,
    /// An annotation.
    Annotation,
    /// A finalizer.
    Finalizer,
}

impl KeyKind {
    /// The name of the kind.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Annotation => "annotation",
            Self::Finalizer => "finalizer",
        }
    }
}

/// A key of a label, an annotation or a finalizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The key. A part that differs stands in angle brackets.
    pub name: &'static str,
    /// The kind of the key.
    pub kind: KeyKind,
    /// The objects that have the key.
    pub on: &'static str,
    /// The writer of the key: `You`, `Keyplane` or `Agent`.
    pub writer: &'static str,
    /// The effect or content of the key.
    pub purpose: &'static str,
}

const fn label(name: &'static str, on: &'static str, writer: &'static str, purpose: &'static str) -> Key {
    Key { name, kind: KeyKind::Label, on, writer, purpose }
}

const fn annotation(name: &'static str, on: &'static str, writer: &'static str, purpose: &'static str) -> Key {
    Key { name, kind: KeyKind::Annotation, on, writer, purpose }
}

const fn finalizer(name: &'static str, on: &'static str, writer: &'static str, purpose: &'static str) -> Key {
    Key { name, kind: KeyKind::Finalizer, on, writer, purpose }
}

const YOU: &str = "You";
const KEYPLANE: &str = "Keyplane";
const AGENT: &str = "Agent";

const ALL_OBJECTS: &str = "All objects of Keyplane";
const CLUSTER_SPEC: &str = "ClusterSpec";
const NODE_POOL: &str = "NodePool";
const SECRET: &str = "Secret";
const CONFIG_MAP: &str = "ConfigMap";
const BOTH: &str = "Secret and ConfigMap";
const LEASE: &str = "Lease";
const POD: &str = "Pod";
const ADD_ON: &str = "Objects of add-ons";

/// All keys, by the objects that have them.
pub const KEYS: &[Key] = &[
    label(
        CLUSTER_LABEL,
        ALL_OBJECTS,
        KEYPLANE,
        "The ClusterSpec that the object belongs to. Set it on a Secret or ConfigMap of your own that the spec refers to: then Keyplane sees a change at once.",
    ),
    label(NODE_LABEL, ALL_OBJECTS, KEYPLANE, "The node that the object is for."),
    label(NODE_POOL_LABEL, ALL_OBJECTS, KEYPLANE, "The NodePool that the object belongs to."),
    annotation(
        CONFIRM_DELETION_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "Confirms the deletion of the cluster's keys where `spec.deletionPolicy` is `Delete`. The value is the name of the ClusterSpec.",
    ),
    annotation(
        ROLLOUT_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "With the value `AtOnce`, Keyplane writes changed static pods for all nodes at once. Use it for a control plane that is down.",
    ),
    annotation(
        RESTORE_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "With the value `true`, Keyplane generates no missing Secret: a backup brings it. With `false`, Keyplane generates keys although the nodes seem to run a cluster.",
    ),
    annotation(
        ROTATE_CERTIFICATES_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "Requests new keys and certificates, as `spec.rotate.certificates` does. A value that is new makes one request.",
    ),
    annotation(
        ROTATE_CERTIFICATE_AUTHORITIES_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "Requests a rotation of all CAs, as `spec.rotate.certificateAuthorities` does.",
    ),
    annotation(
        RENEW_CERTIFICATE_AUTHORITIES_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "Requests a renewal of self-signed CAs with the same keys, as `spec.rotate.renewCertificateAuthorities` does.",
    ),
    annotation(
        ROTATE_SERVICE_ACCOUNT_KEY_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "Requests a rotation of the key for service-account tokens, as `spec.rotate.serviceAccountKey` does.",
    ),
    annotation(
        ROTATE_ENCRYPTION_KEY_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "Requests a rotation of the key for encryption at rest, as `spec.rotate.encryptionKey` does.",
    ),
    annotation(
        COMPLETE_ROTATION_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "Approves the completion of a rotation, as `spec.rotate.complete` does. The value is that of the request.",
    ),
    annotation(
        ROLL_BACK_ROTATION_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "Rolls a rotation back, as `spec.rotate.rollBack` does. The value is that of the request.",
    ),
    annotation(
        REVOKE_CERTIFICATE_AUTHORITIES_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "Requests the revocation of all CAs, as `spec.rotate.revoke.certificateAuthorities` does.",
    ),
    annotation(
        REVOKE_SERVICE_ACCOUNT_KEY_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "Requests the revocation of the key for service-account tokens, as `spec.rotate.revoke.serviceAccountKey` does.",
    ),
    annotation(
        CONFIRM_REVOCATION_ANNOTATION,
        CLUSTER_SPEC,
        YOU,
        "Confirms a revocation, as `spec.rotate.revoke.confirm` does. The value is that of `status.revocation.confirm`.",
    ),
    finalizer(
        CLUSTERSPEC_FINALIZER,
        CLUSTER_SPEC,
        KEYPLANE,
        "Holds a ClusterSpec with `spec.deletionPolicy: Delete` until its Secrets and ConfigMaps are deleted.",
    ),
    finalizer(
        NODEPOOL_FINALIZER,
        NODE_POOL,
        KEYPLANE,
        "Holds a NodePool until its bootstrap token is revoked and its objects are deleted.",
    ),
    annotation(CONTENT_CHECKSUM_ANNOTATION, BOTH, KEYPLANE, "The SHA-256 of the object's data."),
    annotation(
        APPLIED_CHECKSUM_ANNOTATION,
        BOTH,
        YOU,
        "Confirms, on a node without an agent, that somebody has applied the files to the node. The value is that of `keyplane.io/content-checksum`.",
    ),
    annotation(
        REVOKED_CAS_ANNOTATION,
        BOTH,
        KEYPLANE,
        "The SHA-256 of the certificates of revoked CAs, the last one first. An agent removes the kubelet's certificates that come from them.",
    ),
    annotation(
        "keyplane.io/restart-checksum.<component>",
        BOTH,
        KEYPLANE,
        "The SHA-256 of the files that the component reads only at its start. A new value restarts the component: Keyplane copies it to the static pod, and for etcd on a node with an agent to the ConfigMap.",
    ),
    label(USER_LABEL, SECRET, KEYPLANE, "The user in `spec.users` that the kubeconfig is for."),
    label(
        AGENT_BOOTSTRAP_LABEL,
        SECRET,
        KEYPLANE,
        "Identifies the Secret with the first credential of an agent. Leave these Secrets out of a backup.",
    ),
    annotation(
        NOT_AFTER_ANNOTATION,
        SECRET,
        KEYPLANE,
        "The earliest expiry of a certificate in the Secret (RFC 3339).",
    ),
    annotation(
        ISSUER_CHECKSUM_ANNOTATION,
        SECRET,
        KEYPLANE,
        "The SHA-256 of the CAs that signed the certificates in the Secret.",
    ),
    annotation(TOKEN_EXPIRES_ANNOTATION, SECRET, KEYPLANE, "The expiry of the token in the Secret (RFC 3339)."),
    annotation(
        ROTATION_STATE_ANNOTATION,
        SECRET,
        KEYPLANE,
        "The state of the last rotation of the CA or the service-account key, as JSON. Keep it in a backup: Keyplane refuses a Secret with `next.*` or `previous.*` keys and no state.",
    ),
    annotation(
        ROTATION_STAGE_ANNOTATION,
        SECRET,
        KEYPLANE,
        "The stage of the encryption key's rotation, or `Completed`.",
    ),
    annotation(
        "keyplane.io/rotated-by-<source>",
        SECRET,
        KEYPLANE,
        "The value of the last request that the Secret answers, by its source: the same value again requests nothing.",
    ),
    annotation(EXTERNAL_CA_ANNOTATION, SECRET, KEYPLANE, "Identifies the Secret of an external CA, which has no key."),
    label(
        SIGNING_REQUEST_LABEL,
        CONFIG_MAP,
        KEYPLANE,
        "Identifies a request to an external signer. The value is the CA that signs it: `ca`, `etcd-ca` or `front-proxy-ca`.",
    ),
    label(
        KUBELET_CSR_LABEL,
        CONFIG_MAP,
        KEYPLANE,
        "Identifies a request that Keyplane forwards for a kubelet. The value is the name of the CSR in the target cluster.",
    ),
    annotation(REQUESTED_AT_ANNOTATION, CONFIG_MAP, KEYPLANE, "The time of the request (RFC 3339)."),
    annotation(TRUST_CHECKSUM_ANNOTATION, CONFIG_MAP, KEYPLANE, "The SHA-256 of the trust bundle for a worker node."),
    annotation(
        KUBELET_CA_ANNOTATION,
        CONFIG_MAP,
        KEYPLANE,
        "The fingerprint of the CA that the kubelet's certificates must come from. An agent renews others.",
    ),
    annotation(
        ETCD_INITIAL_CLUSTER_ANNOTATION,
        CONFIG_MAP,
        KEYPLANE,
        "The flags `--initial-cluster-state` and `--initial-cluster` of etcd on the node.",
    ),
    annotation(
        ETCD_MEMBER_ANNOTATION,
        CONFIG_MAP,
        KEYPLANE,
        "The state of the node's etcd member when Keyplane wrote these flags.",
    ),
    annotation(
        RESTART_PERMIT_ANNOTATION,
        CONFIG_MAP,
        KEYPLANE,
        "Permits the restart that the agent of a control-plane node waits for. The value names the restart.",
    ),
    annotation(AGENT_REPORT_ANNOTATION, LEASE, AGENT, "The report of the agent, as JSON. Nothing in it is secret."),
    annotation(
        CONFIG_CHECKSUM_ANNOTATION,
        POD,
        KEYPLANE,
        "On the static pod of an API server: the SHA-256 of the files that the API server reads only at its start.",
    ),
    annotation(
        NETWORK_CHECKSUM_ANNOTATION,
        POD,
        KEYPLANE,
        "On the Pods of Flannel: their network configuration. A change replaces the Pods.",
    ),
    annotation(
        UNMANAGED_ANNOTATION,
        ADD_ON,
        YOU,
        "With the value `true`, Keyplane neither changes nor deletes this object of an add-on in the target cluster.",
    ),
];
