//! Validation of the options that the API servers read from files. A file that they can't read would stop all of them
//! at the same time, so these checks are stricter than the schema of the CRD.

mod audit;
mod authentication;
mod encryption;
mod pod_security;

use keyplane_crds::{Argument, ClusterSpecSpec};

use super::{FieldError, is_dns_name};
use crate::encryption::Settings;

const EXTRA_ARGS: &str = "spec.controlPlane.apiServer.extraArgs";

/// The names of the volumes of these options in the API server's static pod.
const VOLUMES: [&str; 5] =
    ["audit-config", "audit-log", "authentication-config", "admission-config", "encryption-config"];

/// Refuses invalid options, and returns the desired encryption at rest.
pub(super) fn parse(spec: &ClusterSpecSpec) -> Result<Option<Settings>, FieldError> {
    let extra = &spec.control_plane.api_server.extra_args;
    if let Some(audit) = &spec.audit {
        audit::refuse(audit, extra)?;
    }
    if let Some(authentication) = &spec.authentication {
        authentication::refuse(authentication, extra, spec)?;
    }
    if let Some(pod_security) = &spec.pod_security {
        pod_security::refuse(pod_security, extra)?;
    }
    let encryption = spec.encryption_at_rest.as_ref().map(|written| encryption::parse(written, extra)).transpose()?;
    if spec.audit.is_some() || spec.authentication.is_some() || spec.pod_security.is_some() || encryption.is_some() {
        let volumes = &spec.control_plane.api_server.extra_volumes;
        if let Some(taken) = volumes.iter().find(|volume| VOLUMES.contains(&volume.name.as_str())) {
            return Err(FieldError::new(
                "spec.controlPlane.apiServer.extraVolumes",
                format!(
                    "{} is a volume of spec.audit, spec.authentication, spec.podSecurity or spec.encryptionAtRest: choose \
                     another name",
                    taken.name
                ),
            ));
        }
    }
    refuse_proxy(spec)?;
    Ok(encryption)
}

/// Refuses a proxy URL with more than scheme, host and port: everyone who can read the ClusterSpec would see a
/// password.
fn refuse_proxy(spec: &ClusterSpecSpec) -> Result<(), FieldError> {
    let Some(url) = spec.access.as_ref().and_then(|access| access.proxy_url.as_deref()) else { return Ok(()) };
    let rest = ["http://", "https://", "socks5://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let parts = rest.and_then(|rest| rest.rsplit_once(':'));
    let good = parts.is_some_and(|(host, port)| {
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = address.map_or_else(|| is_dns_name(host), |address| address.parse::<std::net::Ipv6Addr>().is_ok());
        host && !port.starts_with(['0', '+']) && port.parse::<u16>().is_ok()
    });
    if good {
        return Ok(());
    }
    // The message does not repeat the URL, which may contain a password.
    Err(FieldError::new(
        "spec.access.proxyURL",
        "must be http://, https:// or socks5:// with a host and a port and nothing else, for example \
         http://bastion.example:3128",
    ))
}

/// Refuses a flag in `extraArgs` that an option sets too.
fn refuse_flags(extra: &[Argument], taken: impl Fn(&str) -> bool, cure: &str) -> Result<(), FieldError> {
    match extra.iter().find(|argument| taken(&argument.name)) {
        None => Ok(()),
        Some(argument) => Err(FieldError::new(EXTRA_ARGS, format!("{} {cure}", argument.name))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cluster, Policy};

    fn field(options: &str) -> Option<(String, String)> {
        let spec = format!(
            "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {{host: api.demo.example}}
controlPlane: {{nodes: [{{name: cp1, addresses: [10.0.0.11]}}]}}
{options}
"
        );
        let spec = serde_saphyr::from_str(&spec).unwrap();
        Cluster::parse("demo", "default", &spec, Policy::default()).err().map(|error| (error.field, error.message))
    }

    #[test]
    fn accepts_valid_options() {
        for good in [
            "audit: {}",
            "audit: {policy: {apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, nonResourceURLs: ['/healthz*']}, {level: Request, resources: [{group: '', resources: [pods]}], futureField: 1}]}}",
            "audit: {log: {path: /data/audit.log, maxAge: 1}, webhook: {secretRef: {name: siem}}}",
            "authentication: {}",
            "authentication: {jwt: [{issuer: {url: 'https://id.example', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]}",
            "authentication: {jwt: [{issuer: {url: 'https://id.example', audiences: [a, b], audienceMatchPolicy: MatchAny}, claimMappings: {username: {expression: claims.sub}}}]}",
            "authentication: {anonymous: {enabled: true}}",
            "authentication: {anonymous: {enabled: true, conditions: [{path: /livez}, {path: /readyz}]}}",
            "podSecurity: {enforce: restricted, version: v1.36, exemptions: {namespaces: [monitoring], runtimeClasses: [gvisor.example]}}",
            "encryptionAtRest: {}",
            "encryptionAtRest: {provider: aesgcm, rotationPeriod: 168h, resources: [secrets, events, widgets.stable.example.com]}",
            "encryptionAtRest: {provider: aescbc, keepRetiredKeys: 0s}",
            "users: [{name: jane, groups: [ops, 'kubeadm:cluster-admins'], validity: 24h}]",
            "access: {proxyURL: 'http://bastion.example:3128'}",
            "access: {proxyURL: 'https://10.0.0.1:443'}",
            "access: {proxyURL: 'socks5://[fd00::1]:1080'}",
            "access: {}",
        ] {
            assert_eq!(field(good), None, "{good}");
        }
    }

    #[test]
    fn refuses_options_that_would_stop_api_servers() {
        let policy = |rules: &str| format!("audit: {{policy: {{apiVersion: audit.k8s.io/v1, kind: Policy, {rules}}}}}");
        let flag = |option: &str, flag: &str| {
            format!(
                "{option}\ncontrolPlane: {{nodes: [{{name: cp1, addresses: [10.0.0.11]}}], apiServer: {{extraArgs: [{{name: {flag}, value: x}}]}}}}"
            )
        };
        let jwt = |issuer: &str, username: &str| {
            format!("authentication: {{jwt: [{{issuer: {{{issuer}}}, claimMappings: {{username: {{{username}}}}}}}]}}")
        };
        let (good_issuer, good_user) = ("url: 'https://id.example', audiences: [a]", "expression: claims.sub");
        for (bad, expected) in [
            (policy("rules: []"), "spec.audit.policy.rules"),
            (policy("rules: [{level: All}]"), "spec.audit.policy"),
            (policy("rules: [{level: None, users: jane}]"), "spec.audit.policy"),
            (policy("rules: [{level: None, nonResourceURLs: [healthz]}]"), "spec.audit.policy.rules[0].nonResourceURLs"),
            (policy("rules: [{level: None, nonResourceURLs: ['/a*b']}]"), "spec.audit.policy.rules[0].nonResourceURLs"),
            (policy("rules: [{level: None, nonResourceURLs: [/a], namespaces: [x]}]"), "spec.audit.policy.rules[0]"),
            (policy("rules: [{level: None, resources: [{resourceNames: [a]}]}]"), "spec.audit.policy.rules[0].resources"),
            (policy("rules: [{level: None, resources: [{group: apps/v1}]}]"), "spec.audit.policy.rules[0].resources"),
            (policy("omitStages: [Never], rules: [{level: None}]"), "spec.audit.policy"),
            (
                "audit: {policy: {apiVersion: audit.k8s.io/v1beta1, kind: Policy, rules: [{level: None}]}}".to_owned(),
                "spec.audit.policy",
            ),
            ("audit: {log: {path: audit.log}}".to_owned(), "spec.audit.log.path"),
            ("audit: {log: {path: /audit.log}}".to_owned(), "spec.audit.log.path"),
            ("audit: {log: {path: /etc/kubernetes/pki/audit.log}}".to_owned(), "spec.audit.log.path"),
            ("audit: {log: {path: /var/log/../../etc/x}}".to_owned(), "spec.audit.log.path"),
            ("audit: {log: {maxAge: -1}}".to_owned(), "spec.audit.log.maxAge"),
            (flag("audit: {}", "audit-log-path"), super::EXTRA_ARGS),
            (flag("authentication: {}", "oidc-issuer-url"), super::EXTRA_ARGS),
            (flag("authentication: {}", "anonymous-auth"), super::EXTRA_ARGS),
            (flag("podSecurity: {}", "admission-control-config-file"), super::EXTRA_ARGS),
            (
                "audit: {}\ncontrolPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}], apiServer: {extraVolumes: [{name: audit-log, hostPath: /a, mountPath: /a}]}}".to_owned(),
                "spec.controlPlane.apiServer.extraVolumes",
            ),
            (jwt("url: 'http://id.example', audiences: [a]", good_user), "spec.authentication.jwt[0].issuer.url"),
            (jwt("url: 'https://id.example?a', audiences: [a]", good_user), "spec.authentication.jwt[0].issuer.url"),
            (jwt("url: 'https://kubernetes.default.svc.cluster.local', audiences: [a]", good_user), "spec.authentication.jwt[0].issuer.url"),
            (jwt("url: 'https://id.example', audiences: []", good_user), "spec.authentication.jwt[0].issuer.audiences"),
            (jwt("url: 'https://id.example', audiences: [a, b]", good_user), "spec.authentication.jwt[0].issuer.audienceMatchPolicy"),
            (jwt("url: 'https://id.example', audiences: [a], certificateAuthority: x", good_user), "spec.authentication.jwt[0].issuer.certificateAuthority"),
            (jwt(good_issuer, ""), "spec.authentication.jwt[0].claimMappings.username"),
            (jwt(good_issuer, "claim: sub"), "spec.authentication.jwt[0].claimMappings.username"),
            (jwt(good_issuer, "claim: sub, prefix: '', expression: claims.sub"), "spec.authentication.jwt[0].claimMappings.username"),
            ("authentication: {jwt: [{issuer: 1}]}".to_owned(), "spec.authentication.jwt[0]"),
            ("authentication: {anonymous: {enabled: false}}".to_owned(), "spec.authentication.anonymous.enabled"),
            (
                "authentication: {anonymous: {enabled: true, conditions: [{path: /livez}]}}".to_owned(),
                "spec.authentication.anonymous.conditions",
            ),
            ("podSecurity: {version: '1.37'}".to_owned(), "spec.podSecurity.version"),
            ("podSecurity: {warnVersion: v1.037}".to_owned(), "spec.podSecurity.warnVersion"),
            ("podSecurity: {exemptions: {namespaces: [a.b]}}".to_owned(), "spec.podSecurity.exemptions.namespaces"),
            ("podSecurity: {exemptions: {usernames: ['']}}".to_owned(), "spec.podSecurity.exemptions.usernames"),
            ("podSecurity: {exemptions: {runtimeClasses: [A]}}".to_owned(), "spec.podSecurity.exemptions.runtimeClasses"),
            (flag("encryptionAtRest: {}", "encryption-provider-config"), super::EXTRA_ARGS),
            (flag("encryptionAtRest: {}", "encryption-provider-config-automatic-reload"), super::EXTRA_ARGS),
            (
                "encryptionAtRest: {}\ncontrolPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}], apiServer: {extraVolumes: [{name: encryption-config, hostPath: /a, mountPath: /a}]}}".to_owned(),
                "spec.controlPlane.apiServer.extraVolumes",
            ),
            ("encryptionAtRest: {provider: aesgcm}".to_owned(), "spec.encryptionAtRest.provider"),
            ("encryptionAtRest: {resources: []}".to_owned(), "spec.encryptionAtRest.resources"),
            ("encryptionAtRest: {resources: ['*.*']}".to_owned(), "spec.encryptionAtRest.resources"),
            ("encryptionAtRest: {resources: [Secret]}".to_owned(), "spec.encryptionAtRest.resources"),
            ("encryptionAtRest: {resources: [secrets.]}".to_owned(), "spec.encryptionAtRest.resources"),
            ("encryptionAtRest: {resources: [widgets.-a.example]}".to_owned(), "spec.encryptionAtRest.resources"),
            ("encryptionAtRest: {resources: [secrets, secrets]}".to_owned(), "spec.encryptionAtRest.resources"),
            ("encryptionAtRest: {resources: [events.events.k8s.io]}".to_owned(), "spec.encryptionAtRest.resources"),
            ("encryptionAtRest: {resources: [deployments.extensions]}".to_owned(), "spec.encryptionAtRest.resources"),
            ("encryptionAtRest: {resources: [serviceipallocations]}".to_owned(), "spec.encryptionAtRest.resources"),
            ("encryptionAtRest: {rotationPeriod: 23h}".to_owned(), "spec.encryptionAtRest.rotationPeriod"),
            ("encryptionAtRest: {rotationPeriod: soon}".to_owned(), "spec.encryptionAtRest.rotationPeriod"),
            ("encryptionAtRest: {keepRetiredKeys: 7d}".to_owned(), "spec.encryptionAtRest.keepRetiredKeys"),
            ("users: [{name: Jane}]".to_owned(), "spec.users[].name"),
            ("users: [{name: jane.doe}]".to_owned(), "spec.users[].name"),
            ("users: [{name: jane}, {name: jane}]".to_owned(), "spec.users"),
            ("users: [{name: jane, groups: ['system:masters']}]".to_owned(), "spec.users[jane].groups"),
            ("users: [{name: jane, groups: ['']}]".to_owned(), "spec.users[jane].groups"),
            ("users: [{name: jane, validity: 8761h}]".to_owned(), "spec.users[jane].validity"),
            ("users: [{name: jane, validity: 1d}]".to_owned(), "spec.users[jane].validity"),
            ("access: {proxyURL: 'bastion.example:3128'}".to_owned(), "spec.access.proxyURL"),
            ("access: {proxyURL: 'ftp://bastion.example:3128'}".to_owned(), "spec.access.proxyURL"),
            ("access: {proxyURL: 'http://bastion.example'}".to_owned(), "spec.access.proxyURL"),
            ("access: {proxyURL: 'http://me:hunter2@bastion.example:3128'}".to_owned(), "spec.access.proxyURL"),
            ("access: {proxyURL: 'http://bastion.example:3128/path'}".to_owned(), "spec.access.proxyURL"),
            ("access: {proxyURL: 'http://bastion.example:0'}".to_owned(), "spec.access.proxyURL"),
        ] {
            // A `controlPlane` in the options replaces the default one.
            let (reported, message) = field_of(&bad);
            assert_eq!(reported, expected, "{bad}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    fn field_of(options: &str) -> (String, String) {
        if let Some((options, control_plane)) = options.split_once("\ncontrolPlane:") {
            let spec = format!(
                "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {{host: api.demo.example}}
controlPlane:{control_plane}
{options}
"
            );
            let spec = serde_saphyr::from_str(&spec).unwrap();
            let error = Cluster::parse("demo", "default", &spec, Policy::default()).unwrap_err();
            return (error.field, error.message);
        }
        field(options).unwrap_or_default()
    }
}
