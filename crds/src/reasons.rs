//! The reasons of Keyplane's conditions and Events. There is no other place for one.
//!
//! `docs/reference/conditions-and-events.md` is the page for people; a test holds it against [`REASONS`] and
//! [`REQUEST_REASONS`].

pub use crate::request_reasons::*;

pub use crate::reason::Reason;
use crate::reason::reasons;

reasons! {
    /// The reasons of the conditions and Events of `ClusterSpec`, `NodePool` and `CertificatePolicy`, but for CSRs.
    REASONS:

    /// All Secrets and ConfigMaps are written.
    RENDERED = "Rendered", "Rendered";
    /// The object can't be read.
    UNREADABLE = "Unreadable", "Rendered";
    /// The spec is not valid: the message names the field.
    INVALID_SPEC = "InvalidSpec", "Rendered; NodePool Ready; CertificatePolicy Ready, ApproverInForce";
    /// The CertificatePolicy that the spec refers to does not exist.
    CERTIFICATE_POLICY_NOT_FOUND = "CertificatePolicyNotFound", "Rendered";
    /// The CertificatePolicy that the spec refers to is not valid.
    CERTIFICATE_POLICY_INVALID = "CertificatePolicyInvalid", "Rendered";
    /// The ClusterSpec is being deleted with its Secrets, and nobody has confirmed that.
    DELETION_NOT_CONFIRMED = "DeletionNotConfirmed", "Rendered";
    /// An object with the name of one of Keyplane's belongs to somebody else.
    FOREIGN_OBJECT = "ForeignObject", "Rendered, AddonsReady, EncryptedAtRest; NodePool Ready";
    /// The Secret of a CA or key is gone, and the cluster runs with what it held.
    CA_MISSING = "CAMissing", "Rendered";
    /// The Secret of a CA or key can't be used.
    CA_UNREADABLE = "CAUnreadable", "Rendered";
    /// The Secret of a CA holds another CA than the one that signed the certificates of the nodes.
    CA_CHANGED = "CAChanged", "Rendered";
    /// An API server answers on a node already, and the keys of its cluster are not in the management cluster.
    CLUSTER_ALREADY_RUNNING = "ClusterAlreadyRunning", "Rendered";
    /// Objects are missing that a backup brings.
    WAITING_FOR_RESTORE = "WaitingForRestore", "Rendered";
    /// Certificates wait for an external signer.
    WAITING_FOR_SIGNER = "WaitingForSigner", "Rendered, ControlPlaneAvailable, CertificatesValid, CertificatesSigned";
    /// A Secret that the spec refers to does not exist.
    SECRET_NOT_FOUND = "SecretNotFound", "Rendered, CertificateAuthoritiesInSync";
    /// A Secret that the spec refers to does not hold what is needed.
    SECRET_UNUSABLE = "SecretUnusable", "Rendered, CertificateAuthoritiesInSync";
    /// The client certificate for an external etcd has expired.
    ETCD_CERTIFICATE_EXPIRED = "EtcdCertificateExpired", "Rendered";
    /// An encryption configuration of your own excludes encryption at rest, which is still in use.
    ENCRYPTION_IN_USE = "EncryptionInUse", "Rendered";
    /// The Secret of the encryption keys is gone, and what is stored can be read with its keys only.
    ENCRYPTION_KEYS_MISSING = "EncryptionKeysMissing", "Rendered, EncryptedAtRest";
    /// The Secret of the encryption keys is older than the files on the nodes.
    ENCRYPTION_KEYS_OUTDATED = "EncryptionKeysOutdated", "Rendered, EncryptedAtRest";
    /// The Secret of the encryption keys can't be used.
    ENCRYPTION_KEYS_UNREADABLE = "EncryptionKeysUnreadable", "Rendered, EncryptedAtRest";

    /// The API server answers.
    AVAILABLE = "Available", "ControlPlaneAvailable";
    /// The target cluster has not been contacted yet.
    NOT_CONTACTED = "NotContacted", "ControlPlaneAvailable, ControlPlaneNodesReady, AddonsReady";
    /// The credential for the target cluster can't be used.
    NO_CLIENT = "NoClient", "ControlPlaneAvailable";
    /// Rights must be granted in the target cluster, and the super-admin credential for that is missing.
    NO_SUPER_ADMIN = "NoSuperAdmin", "ControlPlaneAvailable";
    /// The API server does not accept a certificate of the cluster CA.
    UNAUTHORIZED = "Unauthorized", "ControlPlaneAvailable";
    /// The API server does not answer.
    UNREACHABLE = "Unreachable", "ControlPlaneAvailable";
    /// The API server refused a request, or a request for a rotation can't be fulfilled.
    REQUEST_REFUSED = "RequestRefused", "ControlPlaneAvailable, RotationsCompleted";
    /// A watch of the target cluster ended and starts again.
    WATCH_ENDED = "WatchEnded", "ControlPlaneAvailable";

    /// Every declared control-plane node is Ready.
    NODES_READY = "NodesReady", "ControlPlaneNodesReady";
    /// A declared node is missing.
    NODE_MISSING = "NodeMissing", "ControlPlaneNodesReady";
    /// A Node is not Ready.
    NODE_NOT_READY = "NodeNotReady", "ControlPlaneNodesReady";
    /// The members of etcd have not been contacted yet.
    ETCD_NOT_CONTACTED = "EtcdNotContacted", "ControlPlaneNodesReady";
    /// No member of etcd answers.
    ETCD_UNREACHABLE = "EtcdUnreachable", "ControlPlaneNodesReady";
    /// A change of etcd's membership waits: the message says for what.
    ETCD_WAITING = "EtcdWaiting", "ControlPlaneNodesReady";
    /// A member of etcd is joining: it is not a voting member yet.
    ETCD_MEMBER_JOINING = "EtcdMemberJoining", "ControlPlaneNodesReady";
    /// A node that is no longer declared is still a member of etcd.
    ETCD_MEMBER_LEAVING = "EtcdMemberLeaving", "ControlPlaneNodesReady";
    /// A member of etcd is not healthy.
    ETCD_MEMBER_UNHEALTHY = "EtcdMemberUnhealthy", "ControlPlaneNodesReady";

    /// The loss of any one failure domain leaves the control plane working.
    SPREAD = "Spread", "SpreadAcrossFailureDomains";
    /// A control-plane node declares no failure domain.
    NOT_ALL_DECLARED = "NotAllDeclared", "SpreadAcrossFailureDomains";
    /// etcd has too few members to lose one.
    TOO_FEW_NODES = "TooFewNodes", "SpreadAcrossFailureDomains";
    /// The control plane does not survive the loss of one failure domain.
    DOMAIN_HOLDS_MAJORITY = "DomainHoldsMajority", "SpreadAcrossFailureDomains";

    /// No certificate is past its renewal time.
    VALID = "Valid", "CertificatesValid";
    /// Not everything is written yet.
    NOT_RENDERED = "NotRendered", "CertificatesValid, EncryptedAtRest";
    /// A certificate has expired.
    EXPIRED = "Expired", "CertificatesValid";
    /// A certificate is past its renewal time.
    RENEWAL_DUE = "RenewalDue", "CertificatesValid";
    /// Certificates past their renewal time are renewed in the next maintenance window.
    RENEWAL_WAITING = "RenewalWaiting", "CertificatesValid";
    /// A CA expires within a year.
    CA_EXPIRES_SOON = "CAExpiresSoon", "CertificatesValid";

    /// Every control-plane component runs with its current files.
    ROLLED_OUT = "RolledOut", "RolledOut";
    /// A change waits until the API server of the target cluster answers.
    WAITING_FOR_TARGET = "WaitingForTarget", "RolledOut";
    /// A change waits for a node: it is not Ready, or its member of etcd is not healthy.
    WAITING_FOR_NODE = "WaitingForNode", "RolledOut";
    /// A change waits for a node that does not run with its current files yet.
    WAITING_FOR_NODE_FILES = "WaitingForNodeFiles", "RolledOut";

    /// The nodes hold what Keyplane wrote, or the CAs are those of the spec.
    IN_SYNC = "InSync", "NodesInSync, CertificateAuthoritiesInSync";
    /// The target cluster does not answer.
    UNKNOWN = "Unknown", "NodesInSync, KubeletVersionsMatch";
    /// An API server presents a certificate of another CA.
    CA_DIFFERS = "CADiffers", "NodesInSync";
    /// A node runs a newer version than the spec has.
    VERSION_DIFFERS = "VersionDiffers", "NodesInSync";
    /// An API server presents another certificate than Keyplane wrote.
    CERTIFICATE_DIFFERS = "CertificateDiffers", "NodesInSync";
    /// A static pod differs from its manifest.
    MANIFEST_DIFFERS = "ManifestDiffers", "NodesInSync";
    /// Files are not applied to a node yet.
    NOT_APPLIED = "NotApplied", "NodesInSync";
    /// The agent of a node has not reported for too long.
    AGENT_SILENT = "AgentSilent", "NodesInSync";
    /// The clock of a node differs from that of the management cluster.
    CLOCK_DIFFERS = "ClockDiffers", "NodesInSync";
    /// The agent of a node reports an error.
    AGENT_REPORTS = "AgentReports", "NodesInSync";

    /// Every kubelet has the version of the control plane.
    CURRENT = "Current", "KubeletVersionsMatch";
    /// A kubelet is newer than the control plane.
    KUBELET_NEWER = "KubeletNewer", "KubeletVersionsMatch";
    /// A kubelet is older than the control plane.
    KUBELET_OLDER = "KubeletOlder", "KubeletVersionsMatch";
    /// A kubelet is more than three minor versions older than the control plane.
    KUBELET_TOO_OLD = "KubeletTooOld", "KubeletVersionsMatch";

    /// The add-ons run.
    INSTALLED = "Installed", "AddonsReady";
    /// No add-on is enabled.
    NOT_REQUIRED = "NotRequired", "AddonsReady";
    /// An add-on could not be applied.
    APPLY_FAILED = "ApplyFailed", "AddonsReady";
    /// A change is being rolled out.
    ROLLING_OUT = "RollingOut", "AddonsReady; Event";

    /// Everything that the spec lists is encrypted with one key.
    ENCRYPTED = "Encrypted", "EncryptedAtRest";
    /// Not everything is encrypted yet.
    NOT_ENCRYPTED = "NotEncrypted", "EncryptedAtRest";
    /// A stage of the encryption takes too long.
    ENCRYPTION_STUCK = "EncryptionStuck", "EncryptedAtRest";
    /// Every API server learns the new key.
    PUBLISH = "Publish", "EncryptedAtRest";
    /// Every API server starts to write with the new key.
    WRITE = "Write", "EncryptedAtRest";
    /// The stored objects are re-encrypted with the new key.
    REENCRYPT = "Reencrypt", "EncryptedAtRest";
    /// Every object is re-encrypted, and etcd's history still has the former key.
    SETTLE = "Settle", "EncryptedAtRest";
    /// Every API server forgets the former key.
    DROP = "Drop", "EncryptedAtRest";

    /// No rotation is in progress, or nothing is.
    SETTLED = "Settled", "RotationsCompleted, Reconciling";
    /// A rotation is in progress.
    ROTATION_IN_PROGRESS = "RotationInProgress", "RotationsCompleted, CertificateAuthoritiesInSync";
    /// A rotation has made no progress for half an hour.
    ROTATION_STUCK = "RotationStuck", "RotationsCompleted";
    /// A rotation waits at the approval gate.
    WAITING_FOR_APPROVAL = "WaitingForApproval", "RotationsCompleted";
    /// A requested rotation waits until the cluster is healthy.
    WAITING_TO_START = "WaitingToStart", "RotationsCompleted, CertificateAuthoritiesInSync";
    /// A revocation waits for its confirmation.
    REVOCATION_NOT_CONFIRMED = "RevocationNotConfirmed", "RotationsCompleted";

    /// No certificate waits for an external signer.
    SIGNED = "Signed", "CertificatesSigned";
    /// Signed certificates are used in the next maintenance window.
    WAITING_FOR_MAINTENANCE_WINDOW = "WaitingForMaintenanceWindow", "CertificatesSigned";
    /// A certificate expires soon, and the external signer has not answered.
    SIGNER_OVERDUE = "SignerOverdue", "CertificatesSigned";
    /// The certificate of an external signer is not used: the message says why.
    CERTIFICATE_REFUSED = "CertificateRefused", "CertificatesSigned; Event";

    /// A user-provided CA is not in use yet.
    NOT_ADOPTED = "NotAdopted", "CertificateAuthoritiesInSync";
    /// The rotation to a user-provided CA was rolled back.
    ROLLED_BACK = "RolledBack", "CertificateAuthoritiesInSync";

    /// All conditions are met that Ready depends on.
    READY = "Ready", "Ready; Event";
    /// Reconciliation is paused.
    PAUSED = "Paused", "Reconciling";
    /// Nothing waits for a person.
    NOT_STALLED = "NotStalled", "Stalled";

    /// The declaration is in force, or this policy decides about CSRs of Keyplane's own cluster.
    IN_FORCE = "InForce", "NodePool Ready; CertificatePolicy ApproverInForce";
    /// The ClusterSpec that the pool refers to does not exist.
    CLUSTER_SPEC_NOT_FOUND = "ClusterSpecNotFound", "NodePool Ready";
    /// The bootstrap token could not be created or revoked: nodes can't join.
    NO_TOKEN = "NoToken", "NodePool Ready";
    /// The pool is being deleted, and its bootstrap token is not revoked yet.
    REVOKING_TOKEN = "RevokingToken", "NodePool Ready";
    /// All nodes of the pool are Ready.
    ALL_READY = "AllReady", "NodePool NodesReady";
    /// A node of the pool is not Ready.
    NODES_NOT_READY = "NodesNotReady", "NodePool NodesReady";
    /// The pool declares no node by name, and none has joined.
    NO_NODES = "NoNodes", "NodePool NodesReady";
    /// The target cluster does not answer.
    TARGET_UNREACHABLE = "TargetUnreachable", "NodePool NodesReady";
    /// No CSR of a kubelet has waited for long.
    NO_PENDING_REQUESTS = "NoPendingRequests", "NodePool CertificatesApproved";
    /// The node has not been seen: it has requested no certificate.
    NOT_SEEN = "NotSeen", "NodePool `status.machines[]`";
    /// The node had joined, and its Node is gone.
    NODE_GONE = "NodeGone", "NodePool `status.machines[]`";
    /// The Node is registered, and its kubelet has not reported yet.
    NO_STATUS = "NoStatus", "NodePool `status.machines[]`";
    /// The first CSR of the kubelet was denied.
    REQUEST_DENIED = "RequestDenied", "NodePool `status.machines[]`";
    /// The first CSR of the kubelet could not be signed.
    REQUEST_FAILED = "RequestFailed", "NodePool `status.machines[]`";
    /// The first CSR of the kubelet is not approved yet.
    NOT_APPROVED = "NotApproved", "NodePool `status.machines[]`";
    /// The first CSR of the kubelet is approved and not signed yet.
    NOT_SIGNED = "NotSigned", "NodePool `status.machines[]`";
    /// The kubelet has its certificate, and has not registered its Node yet.
    CERTIFICATE_ISSUED = "CertificateIssued", "NodePool `status.machines[]`";

    /// The policy is valid.
    ACCEPTED = "Accepted", "CertificatePolicy Ready";
    /// The policy has no spec.approver.
    NO_APPROVER = "NoApprover", "CertificatePolicy ApproverInForce";
    /// Another policy has spec.approver, too.
    ANOTHER_APPROVER = "AnotherApprover", "CertificatePolicy ApproverInForce";
    /// The policy is not in Keyplane's own namespace.
    OTHER_NAMESPACE = "OtherNamespace", "CertificatePolicy ApproverInForce";

    /// Certificates or keys were issued for the first time.
    ISSUED = "Issued", "Event";
    /// Certificates were renewed.
    RENEWED = "Renewed", "Event";
    /// A ConfigMap was written.
    WRITTEN = "Written", "Event";
    /// A certificate was requested from an external signer.
    REQUESTED = "Requested", "Event";
    /// A request to an external signer was deleted: it is answered, or not needed any more.
    REQUEST_SETTLED = "RequestSettled", "Event";
    /// A CSR of a kubelet could not be forwarded to the external signer.
    REQUEST_NOT_FORWARDED = "RequestNotForwarded", "Event";
    /// Every control-plane node runs another version than before.
    UPGRADED = "Upgraded", "Event";
    /// A rotation started.
    ROTATION_STARTED = "RotationStarted", "Event";
    /// A rotation entered its next stage.
    ROTATION_ADVANCED = "RotationAdvanced", "Event";
    /// A rotation is being rolled back.
    ROTATION_ROLLING_BACK = "RotationRollingBack", "Event";
    /// A rotation is completed.
    ROTATION_COMPLETED = "RotationCompleted", "Event";
    /// A CA has a new certificate of the same key.
    CA_RENEWED = "CARenewed", "Event";
    /// A CA or key was revoked.
    REVOKED = "Revoked", "Event";
    /// A key for encryption at rest was generated.
    ENCRYPTION_KEY_CREATED = "EncryptionKeyCreated", "Event";
    /// A rotation of the encryption key entered the stage Publish.
    ENCRYPTION_PUBLISH = "EncryptionPublish", "Event";
    /// A rotation of the encryption key entered the stage Write.
    ENCRYPTION_WRITE = "EncryptionWrite", "Event";
    /// A rotation of the encryption key entered the stage Reencrypt.
    ENCRYPTION_REENCRYPT = "EncryptionReencrypt", "Event";
    /// A rotation of the encryption key entered the stage Settle.
    ENCRYPTION_SETTLE = "EncryptionSettle", "Event";
    /// A rotation of the encryption key entered the stage Drop.
    ENCRYPTION_DROP = "EncryptionDrop", "Event";
    /// A rotation of the encryption key is completed.
    ENCRYPTION_COMPLETED = "EncryptionCompleted", "Event";
    /// A rotation of the encryption key makes progress within its stage.
    CONTINUED = "Continued", "Event";
    /// Keyplane was given its rights in the target cluster with the super-admin credential.
    TARGET_BOOTSTRAPPED = "TargetBootstrapped", "Event";
    /// Keyplane's objects in the target cluster were repaired.
    TARGET_OBJECTS_REPAIRED = "TargetObjectsRepaired", "Event";
    /// Somebody else approves the client certificates of kubelets, too.
    APPROVED_BY_OTHERS = "ApprovedByOthers", "Event";
    /// Add-ons were applied in the target cluster.
    ADDONS_APPLIED = "AddonsApplied", "Event";
    /// Add-ons were removed from the target cluster.
    ADDONS_REMOVED = "AddonsRemoved", "Event";
    /// A Node was given its labels and taints.
    NODE_LABELLED = "NodeLabelled", "Event";
    /// The objects of a node that is no longer declared were deleted.
    NODE_REMOVED = "NodeRemoved", "Event";
    /// A node was added to etcd as a learner.
    ETCD_LEARNER_ADDED = "EtcdLearnerAdded", "Event";
    /// A learner of etcd was promoted to a voting member.
    ETCD_MEMBER_PROMOTED = "EtcdMemberPromoted", "Event";
    /// A member of etcd was removed.
    ETCD_MEMBER_REMOVED = "EtcdMemberRemoved", "Event";
    /// The kubeconfig of a user who is no longer declared was deleted.
    USER_REMOVED = "UserRemoved", "Event";
    /// A worker node that was cut off has a certificate of its own again.
    WORKER_RETURNED = "WorkerReturned", "Event";
    /// A bootstrap token was created.
    TOKEN_CREATED = "TokenCreated", "Event";
    /// A bootstrap token was revoked.
    TOKEN_REVOKED = "TokenRevoked", "Event";
    /// The first credential of an agent was created.
    AGENT_CREDENTIAL_CREATED = "AgentCredentialCreated", "Event";
    /// The first credential of an agent was revoked.
    AGENT_CREDENTIAL_REVOKED = "AgentCredentialRevoked", "Event";
    /// Keyplane has no rights for the objects of agents: the chart is installed without nodeAgents.
    NODE_AGENT_FORBIDDEN = "NodeAgentForbidden", "Event";
    /// The objects of agents could not be written.
    NODE_AGENT_BLOCKED = "NodeAgentBlocked", "Event";
}
