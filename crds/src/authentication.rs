//! Authentication of clients without a certificate or service-account token.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Structured authentication of the target cluster: `AuthenticationConfiguration` of `apiserver.config.k8s.io/v1`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// Issuers of tokens, for example a company's identity provider (OIDC). Each has the fields of `jwt` in an
    /// `AuthenticationConfiguration`. The API servers reload a change within a minute. They keep the former
    /// configuration while the new one is not valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "jwt")]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.issuer.url == a.issuer.url))")
        .message("spec.authentication.jwt: two entries have the same issuer.url: write one entry for each issuer"))]
    #[x_kube(validation = Rule::new("self.all(j, j.issuer.audiences.size() == 1 || has(j.issuer.audienceMatchPolicy))")
        .message("spec.authentication.jwt[].issuer: several audiences need audienceMatchPolicy: MatchAny"))]
    #[x_kube(validation = Rule::new("self.all(j, has(j.claimMappings.username.claim) != has(j.claimMappings.username.expression))")
        .message("spec.authentication.jwt[].claimMappings.username: write either claim (with prefix) or expression"))]
    #[x_kube(validation = Rule::new("self.all(j, has(j.claimMappings.username.claim) == has(j.claimMappings.username.prefix))")
        .message("spec.authentication.jwt[].claimMappings.username: claim needs a prefix (it may be empty: prefix: \"\"), and expression has none"))]
    pub jwt: Vec<Map<String, Value>>,

    /// Requests without credentials. Not set means that they are accepted as `system:anonymous`, as without this
    /// section. A change restarts the API servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<Anonymous>,
}

/// The requests without credentials that are accepted as `system:anonymous`. RBAC decides about their permissions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.enabled")
    .message("spec.authentication.anonymous.enabled: the kubelet and load balancers request /livez and /readyz without credentials, and the kubelet would restart the API server again and again: write enabled: true with the conditions /livez, /readyz and /healthz"))]
#[x_kube(validation = Rule::new("!has(self.conditions) || (self.conditions.exists(c, c.path == '/livez') && self.conditions.exists(c, c.path == '/readyz'))")
    .message("spec.authentication.anonymous.conditions must have the paths /livez and /readyz, which the kubelet and load balancers request without credentials: add them"))]
pub struct Anonymous {
    /// Whether requests without credentials are accepted.
    pub enabled: bool,

    /// Accepts only requests for one of these paths. Not set means all. `kubeadm join` with a token needs
    /// `/api/v1/namespaces/kube-public/configmaps/cluster-info`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    pub conditions: Vec<AnonymousCondition>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnonymousCondition {
    /// The whole path, for example `/livez`.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/')")
        .message("spec.authentication.anonymous.conditions[].path must begin with a slash, for example /livez"))]
    pub path: String,
}

/// The `jwt` of an `AuthenticationConfiguration`. The API server of the management cluster checks the listed fields and
/// keeps fields that are newer than this list. Only the target cluster's API server can evaluate the expressions.
fn jwt(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let text = |longest: u32| serde_json::json!({"type": "string", "maxLength": longest});
    let open = |properties: Value, required: &[&str]| {
        let mut object = serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": properties});
        if !required.is_empty() {
            object["required"] = required.into();
        }
        object
    };
    // No user, query or fragment: the API server refuses them.
    let url = serde_json::json!({"type": "string", "maxLength": 2048, "pattern": "^https://[^@?#\\s]+$"});
    let issuer = open(
        serde_json::json!({
            "url": url,
            "discoveryURL": url,
            "certificateAuthority": text(65536),
            "audiences": {"type": "array", "minItems": 1, "maxItems": 16, "items": {"type": "string", "minLength": 1, "maxLength": 512}},
            "audienceMatchPolicy": {"type": "string", "enum": ["MatchAny"]},
            "egressSelectorType": {"type": "string", "enum": ["controlplane", "cluster"]},
        }),
        &["url", "audiences"],
    );
    let claim = open(serde_json::json!({"claim": text(512), "prefix": text(512), "expression": text(8192)}), &[]);
    let mappings = open(
        serde_json::json!({
            "username": claim,
            "groups": claim,
            "uid": open(serde_json::json!({"claim": text(512), "expression": text(8192)}), &[]),
            "extra": {"type": "array", "maxItems": 64, "items": open(serde_json::json!({"key": text(512), "valueExpression": text(8192)}), &["key", "valueExpression"])},
        }),
        &["username"],
    );
    let claim_rule = open(
        serde_json::json!({"claim": text(512), "requiredValue": text(512), "expression": text(8192), "message": text(1024)}),
        &[],
    );
    let user_rule = open(serde_json::json!({"expression": text(8192), "message": text(1024)}), &["expression"]);
    let item = open(
        serde_json::json!({
            "issuer": issuer,
            "claimMappings": mappings,
            "claimValidationRules": {"type": "array", "maxItems": 64, "items": claim_rule},
            "userValidationRules": {"type": "array", "maxItems": 64, "items": user_rule},
        }),
        &["issuer", "claimMappings"],
    );
    schemars::json_schema!({"type": "array", "maxItems": 16, "items": item})
}
