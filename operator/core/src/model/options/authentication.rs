//! Validation of structured authentication (k8s.io/apiserver, `apis/apiserver/validation`). Only the API server can
//! compile the CEL expressions.

use std::collections::BTreeSet;

use keyplane_crds::{Anonymous, Argument, Authentication, ClusterSpecSpec};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{FieldError, refuse_flags};
use crate::pki::certificates_in;

const FIELD: &str = "spec.authentication";
/// The paths that kubelet probes and load balancers request without credentials.
const PROBE_PATHS: [&str; 2] = ["/livez", "/readyz"];

/// The validated part of an entry in `jwt`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Jwt {
    issuer: Issuer,
    claim_mappings: ClaimMappings,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Issuer {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: Option<String>,
    audiences: Vec<String>,
    audience_match_policy: Option<String>,
}

#[derive(Deserialize)]
struct ClaimMappings {
    username: Claim,
}

#[derive(Deserialize)]
struct Claim {
    #[serde(rename = "claim")]
    name: Option<String>,
    prefix: Option<String>,
    expression: Option<String>,
}

pub(super) fn refuse(
    authentication: &Authentication,
    extra: &[Argument],
    spec: &ClusterSpecSpec,
) -> Result<(), FieldError> {
    refuse_flags(
        extra,
        |name| ["authentication-config", "anonymous-auth"].contains(&name) || name.starts_with("oidc-"),
        "excludes spec.authentication: write an issuer in spec.authentication.jwt and anonymous requests in \
         spec.authentication.anonymous",
    )?;
    let own = format!("https://kubernetes.default.svc.{}", spec.network.dns_domain);
    let mut issuers = BTreeSet::from([own]);
    for (index, written) in authentication.jwt.iter().enumerate() {
        let field = format!("{FIELD}.jwt[{index}]");
        let jwt = parse(&field, written)?;
        refuse_issuer(&format!("{field}.issuer"), &jwt.issuer)?;
        if !issuers.insert(jwt.issuer.url.clone()) {
            let message = format!("{} is listed twice, or is the API server's own issuer", jwt.issuer.url);
            return Err(FieldError::new(format!("{field}.issuer.url"), message));
        }
        let username = &jwt.claim_mappings.username;
        let claim = username.name.is_some() && username.prefix.is_some() && username.expression.is_none();
        let expression = username.name.is_none() && username.prefix.is_none() && username.expression.is_some();
        if !claim && !expression {
            return Err(FieldError::new(
                format!("{field}.claimMappings.username"),
                "needs either claim and prefix (which may be empty), or expression",
            ));
        }
    }
    authentication.anonymous.as_ref().map_or(Ok(()), refuse_anonymous)
}

fn parse(field: &str, written: &Map<String, Value>) -> Result<Jwt, FieldError> {
    serde_json::from_value(Value::Object(written.clone()))
        .map_err(|error| FieldError::new(field, format!("is not a jwt of an AuthenticationConfiguration: {error}")))
}

fn refuse_issuer(field: &str, issuer: &Issuer) -> Result<(), FieldError> {
    let good = |url: &str| {
        url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.contains(['@', '?', '#', ' ']))
    };
    let urls = [("url", Some(&issuer.url)), ("discoveryURL", issuer.discovery_url.as_ref())];
    if let Some((name, Some(url))) = urls.into_iter().find(|(_, url)| url.is_some_and(|url| !good(url))) {
        let message = format!("{url:?} must begin with https:// and have no user, query or fragment");
        return Err(FieldError::new(format!("{field}.{name}"), message));
    }
    let audiences: BTreeSet<_> = issuer.audiences.iter().filter(|audience| !audience.is_empty()).collect();
    if audiences.is_empty() || audiences.len() != issuer.audiences.len() {
        return Err(FieldError::new(format!("{field}.audiences"), "needs at least one, none empty and none twice"));
    }
    match issuer.audience_match_policy.as_deref() {
        Some("MatchAny") => {}
        None if audiences.len() == 1 => {}
        _ => {
            let message = "must be MatchAny where there are several audiences";
            return Err(FieldError::new(format!("{field}.audienceMatchPolicy"), message));
        }
    }
    let bundle = issuer.certificate_authority.as_deref().filter(|text| !text.is_empty());
    if bundle.is_some_and(|text| certificates_in("certificateAuthority", text).is_err()) {
        let message = "must be certificates in PEM form, or left out to use the CAs that the nodes trust";
        return Err(FieldError::new(format!("{field}.certificateAuthority"), message));
    }
    Ok(())
}

fn refuse_anonymous(anonymous: &Anonymous) -> Result<(), FieldError> {
    if !anonymous.enabled {
        return Err(FieldError::new(
            format!("{FIELD}.anonymous.enabled"),
            "the kubelet and load balancers request /livez and /readyz without credentials, so the kubelet would \
             restart the API server again and again: write enabled: true with the conditions /livez, /readyz and /healthz",
        ));
    }
    let has = |path: &&str| anonymous.conditions.iter().any(|condition| condition.path == *path);
    if !anonymous.conditions.is_empty() && !PROBE_PATHS.iter().all(has) {
        return Err(FieldError::new(
            format!("{FIELD}.anonymous.conditions"),
            "must have the paths /livez and /readyz, which the kubelet and load balancers request without credentials",
        ));
    }
    match anonymous.conditions.iter().find(|condition| !condition.path.starts_with('/')) {
        Some(condition) => Err(FieldError::new(
            format!("{FIELD}.anonymous.conditions"),
            format!("{:?} must begin with a slash", condition.path),
        )),
        None => Ok(()),
    }
}
