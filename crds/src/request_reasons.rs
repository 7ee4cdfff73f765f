//! The reasons of the verdicts on kubelet CSRs: in conditions of CSRs, in Events, and in `keyplane csr explain`.

use crate::reason::{Reason, reasons};

reasons! {
    /// The reasons of a decision about a CSR: in the CSR's condition `Approved` or `Denied`, in Events, in a NodePool's condition
    /// `CertificatesApproved`, and in `keyplane csr explain`.
    REQUEST_REASONS:

    /// All rules passed.
    ALL_RULES_PASSED = "AllRulesPassed", "Approve";
    /// The rule passed.
    PASSED = "Passed", "Approve";
    /// The rule could not be evaluated: another rule objects to its input.
    NOT_EVALUATED = "NotEvaluated", "Wait";
    /// The CSR is for another signer.
    OTHER_SIGNER = "OtherSigner", "Ignore";
    /// The CSR is approved, denied, failed, signed or being deleted.
    ALREADY_SETTLED = "AlreadySettled", "Ignore";
    /// The policy disables approval for this signer.
    APPROVAL_DISABLED = "ApprovalDisabled", "Ignore";
    /// The CSR is older than the policy's wait limit.
    REQUEST_TOO_OLD = "RequestTooOld", "Ignore";
    /// The requester is not a node, nor the holder of a bootstrap token where one may request.
    REQUESTER_NOT_A_NODE = "RequesterNotANode", "Deny";
    /// The requester is not in the group that its username belongs to.
    REQUESTER_NOT_IN_GROUP = "RequesterNotInGroup", "Deny";
    /// The CSR is not one PEM block with one PKCS #10 request.
    REQUEST_MALFORMED = "RequestMalformed", "Deny";
    /// The CSR is too large.
    REQUEST_TOO_LARGE = "RequestTooLarge", "Deny";
    /// The CSR holds more than the rules can see, or is not in DER.
    REQUEST_NOT_CANONICAL = "RequestNotCanonical", "Deny";
    /// The CSR has an attribute that a kubelet does not send.
    ATTRIBUTE_NOT_ALLOWED = "AttributeNotAllowed", "Deny";
    /// The CSR has an extension that a kubelet does not send.
    EXTENSION_NOT_ALLOWED = "ExtensionNotAllowed", "Deny";
    /// The policy does not allow the key.
    KEY_NOT_ALLOWED = "KeyNotAllowed", "Deny";
    /// The CSR is not signed by its own key.
    SIGNATURE_INVALID = "SignatureInvalid", "Deny";
    /// The usages are not those of the signer.
    USAGES_NOT_ALLOWED = "UsagesNotAllowed", "Deny";
    /// The requested lifetime is longer than the policy allows.
    EXPIRATION_TOO_LONG = "ExpirationTooLong", "Deny";
    /// The subject is not one organization and one common name.
    SUBJECT_NOT_ALLOWED = "SubjectNotAllowed", "Deny";
    /// The organization is not `system:nodes`.
    ORGANIZATION_NOT_ALLOWED = "OrganizationNotAllowed", "Deny";
    /// The common name is not the requester's username.
    COMMON_NAME_NOT_REQUESTER = "CommonNameNotRequester", "Deny";
    /// The common name is not that of a node.
    COMMON_NAME_NOT_A_NODE = "CommonNameNotANode", "Deny";
    /// The CSR has no DNS name and no IP address.
    SAN_MISSING = "SANMissing", "Deny";
    /// The CSR has more names than the policy allows.
    TOO_MANY_SANS = "TooManySANs", "Deny";
    /// The CSR has a name that is neither a DNS name nor an IP address.
    SAN_KIND_NOT_ALLOWED = "SANKindNotAllowed", "Deny";
    /// A DNS name or an IP address is malformed.
    SAN_MALFORMED = "SANMalformed", "Deny";
    /// The policy does not allow a DNS name.
    NAME_NOT_ALLOWED = "NameNotAllowed", "Deny";
    /// A DNS name is not that of the node.
    NAME_NOT_DECLARED = "NameNotDeclared", "Deny";
    /// A DNS name is not in the status of the Node yet.
    NAME_NOT_REPORTED = "NameNotReported", "Wait";
    /// A DNS name does not resolve yet.
    NAME_NOT_RESOLVED = "NameNotResolved", "Wait";
    /// A DNS name resolves to an address of another node.
    NAME_RESOLVES_ELSEWHERE = "NameResolvesElsewhere", "Wait";
    /// A DNS name is that of another node.
    ANOTHER_NODES_NAME = "AnotherNodesName", "Deny";
    /// No node may have the name.
    RESERVED_NAME = "ReservedName", "Deny";
    /// The policy does not allow an IP address.
    ADDRESS_NOT_ALLOWED = "AddressNotAllowed", "Deny";
    /// An IP address is not declared for the node.
    ADDRESS_NOT_DECLARED = "AddressNotDeclared", "Deny, Wait";
    /// An IP address is not in the status of the Node yet.
    ADDRESS_NOT_REPORTED = "AddressNotReported", "Wait";
    /// An IP address is declared for two nodes.
    ADDRESS_DECLARED_TWICE = "AddressDeclaredTwice", "Wait";
    /// Another Node reports an IP address.
    ADDRESS_IN_USE = "AddressInUse", "Wait";
    /// An IP address is declared for another node.
    ANOTHER_NODES_ADDRESS = "AnotherNodesAddress", "Deny";
    /// No node may have the IP address.
    RESERVED_ADDRESS = "ReservedAddress", "Deny";
    /// The reserved ranges of the cluster can't be read.
    RESERVED_UNKNOWN = "ReservedUnknown", "Wait";
    /// Nothing declares the node.
    NODE_NOT_DECLARED = "NodeNotDeclared", "Wait";
    /// The NodePool that declares the node can't be read.
    NODE_POOL_UNREADABLE = "NodePoolUnreadable", "Wait";
    /// There is no Node of that name yet.
    NODE_NOT_FOUND = "NodeNotFound", "Wait";
    /// The Node has no addresses yet.
    NODE_HAS_NO_ADDRESSES = "NodeHasNoAddresses", "Wait";
    /// The selector of the NodePool has let in as many nodes as its quota allows.
    MAX_NODES_REACHED = "MaxNodesReached", "Wait";
    /// There is no such NodePool of the cluster yet.
    NODE_POOL_NOT_FOUND = "NodePoolNotFound", "Wait";
    /// The bootstrap token is not of exactly one NodePool.
    TOKEN_NOT_OF_ONE_POOL = "TokenNotOfOnePool", "Deny";
    /// Another NodePool than that of the token declares the node.
    ANOTHER_POOLS_NODE = "AnotherPoolsNode", "Deny";
    /// There is a Node of that name already.
    NODE_EXISTS = "NodeExists", "Wait";
    /// Another CSR for the same node was approved already.
    NODE_ALREADY_ADMITTED = "NodeAlreadyAdmitted", "Wait";
}
