//! The users in `spec.users`, who get a kubeconfig.

use std::collections::BTreeSet;
use std::time::Duration;

use keyplane_crds::{ClusterSpecSpec, RenewBefore, parse_duration};

use super::{Cluster, FieldError, is_dns_name};
use crate::pki::LeafTerms;

const FIELD: &str = "spec.users";
/// Kubernetes can't revoke a single client certificate, so the limit is a year.
const MAX_VALIDITY: Duration = Duration::from_hours(8760);
const MIN_VALIDITY: Duration = Duration::from_mins(10);

/// A user of the target cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name: a DNS label.
    pub name: String,
    /// The groups, sorted, so that their order in the spec does not change the certificate.
    pub groups: Vec<String>,
    /// The validity of the certificate, in place of the policy's.
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
                return Err(FieldError::new(FIELD, format!("the name {name} is listed twice")));
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
                "{group:?}: groups that begin with system: are Kubernetes' own, and system:masters can never be revoked: \
                 write a group of your own and bind a role to it in the target cluster"
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
    if (MIN_VALIDITY..=MAX_VALIDITY).contains(&validity) {
        return Ok(validity);
    }
    Err(FieldError::new(field, format!("{text} must be from 10m to 8760h: a certificate can't be revoked")))
}

impl Cluster {
    /// The terms of a user's certificate. A validity shorter than the policy's fixed `renewBefore` would make the
    /// certificate due from its first minute. Such a certificate is renewed after 70 % of its lifetime, the default of
    /// the policy.
    #[must_use]
    pub fn user_terms(&self, user: &User) -> LeafTerms {
        let mut terms = self.policy.default_leaf();
        if let Some(validity) = user.validity {
            terms.validity = validity;
            if terms.renew_before.of(validity) >= validity {
                terms.renew_before = RenewBefore::default();
            }
        }
        terms
    }
}
