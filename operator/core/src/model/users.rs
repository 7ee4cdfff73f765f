//! Users that get a kubeconfig.

use std::collections::BTreeSet;
use std::time::Duration;

use keyplane_crds::{ClusterSpecSpec, RenewBefore, parse_duration};

use super::{Cluster, FieldError, is_dns_name};
use crate::pki::LeafTerms;

const FIELD: &str = "spec.users";
/// A certificate can't be taken back, so a year is the most.
const LONGEST_VALIDITY: Duration = Duration::from_hours(8760);
const SHORTEST_VALIDITY: Duration = Duration::from_mins(10);

/// A user of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name: a DNS label.
    pub name: String,
    /// The groups, sorted: their order says nothing, and must not change a certificate.
    pub groups: Vec<String>,
    /// How long the certificate is valid, where the policy does not say it.
    pub validity: Option<Duration>,
}

pub(super) fn parse_users(spec: &ClusterSpecSpec) -> Result<Vec<User>, FieldError> {
    let mut names = BTreeSet::new();
    spec.users
        .iter()
        .map(|written| {
            let name = &written.name;
            if !is_dns_name(name) || name.contains('.') || name.len() > 63 {
                let message = format!("{name:?} must be a lower-case DNS label, for example jane-doe");
                return Err(FieldError::new(format!("{FIELD}[].name"), message));
            }
            if !names.insert(name) {
                return Err(FieldError::new(FIELD, format!("the name {name} is there twice")));
            }
            let groups: BTreeSet<_> = written.groups.iter().cloned().collect();
            groups.iter().try_for_each(|group| check_group(name, group))?;
            let validity = written.validity.as_deref().map(|text| parse_validity(name, text)).transpose()?;
            Ok(User { name: name.clone(), groups: groups.into_iter().collect(), validity })
        })
        .collect()
}

fn check_group(user: &str, group: &str) -> Result<(), FieldError> {
    let field = format!("{FIELD}[{user}].groups");
    if group.starts_with("system:") {
        return Err(FieldError::new(
            field,
            format!(
                "{group:?}: groups that begin with system: are Kubernetes' own, and system:masters could never be taken \
                 back: write a group of your own and bind a role to it in the target"
            ),
        ));
    }
    // RFC 5280 has room for 64 characters in an organization's name.
    if group.is_empty() || group.chars().count() > 64 || group.chars().any(char::is_control) {
        return Err(FieldError::new(field, format!("{group:?} must be one line of text of at most 64 characters")));
    }
    Ok(())
}

fn parse_validity(user: &str, text: &str) -> Result<Duration, FieldError> {
    let field = format!("{FIELD}[{user}].validity");
    let validity = parse_duration(text).map_err(|error| FieldError::new(&field, error.to_string()))?;
    if (SHORTEST_VALIDITY..=LONGEST_VALIDITY).contains(&validity) {
        return Ok(validity);
    }
    Err(FieldError::new(field, format!("{text} must be from 10m to 8760h: a certificate can't be taken back")))
}

impl Cluster {
    /// The terms of a user's certificate. Where it lives shorter than the policy's fixed time for renewal it would be due
    /// from its first minute: then it is due after seven tenths of its life, the policy's own default.
    #[must_use]
    pub fn user_terms(&self, user: &User) -> LeafTerms {
        let mut terms = self.policy.default_leaf();
        if let Some(validity) = user.validity {
            terms.validity = validity;
            if terms.renew_before.of(validity) >= validity {
                terms.renew_before = RenewBefore::Percentage(30);
            }
        }
        terms
    }
}
