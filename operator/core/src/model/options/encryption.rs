//! Encryption at rest (k8s.io/apiserver, `apis/apiserver/validation/validation_encryption.go`).

use std::collections::BTreeSet;

use jiff::SignedDuration;
use keyplane_crds::{Argument, EncryptionAtRest, EncryptionProvider, parse_duration};

use super::{FieldError, refuse_flags};
use crate::encryption::Settings;

const FIELD: &str = "spec.encryptionAtRest";
/// Each rotation re-encrypts every object.
const MIN_ROTATION_PERIOD: SignedDuration = SignedDuration::from_hours(24);
/// Ten years.
const MAX_DURATION: SignedDuration = SignedDuration::from_hours(87600);
/// The limit of the CRD's schema.
const MAX_RESOURCES: usize = 32;
/// Resources that are stored without an API of their own. The API servers refuse to encrypt them.
const WITHOUT_API: [&str; 3] = ["apiserveripinfo", "serviceipallocations", "servicenodeportallocations"];

pub(super) fn parse(written: &EncryptionAtRest, extra: &[Argument]) -> Result<Settings, FieldError> {
    refuse_flags(
        extra,
        |name| name.starts_with("encryption-provider-config"),
        "excludes spec.encryptionAtRest: remove one of them",
    )?;
    let period = written.rotation_period.as_deref();
    let rotation_period =
        period.map(|text| duration("rotationPeriod", text, MIN_ROTATION_PERIOD, "from 24h")).transpose()?;
    if written.provider == EncryptionProvider::Aesgcm && rotation_period.is_none() {
        return Err(FieldError::new(
            format!("{FIELD}.provider"),
            "a key of aesgcm is good for 200,000 writes: write a rotationPeriod in which the cluster writes fewer objects, \
             for example 168h, or use secretbox",
        ));
    }
    Ok(Settings {
        provider: written.provider,
        resources: resources(&written.resources)?,
        rotation_period,
        keep_retired: duration("keepRetiredKeys", &written.keep_retired_keys, SignedDuration::ZERO, "from 0s")?,
    })
}

fn resources(written: &[String]) -> Result<BTreeSet<String>, FieldError> {
    let field = || format!("{FIELD}.resources");
    if written.is_empty() || written.len() > MAX_RESOURCES {
        return Err(FieldError::new(field(), format!("has {} entries: write 1 to {MAX_RESOURCES}", written.len())));
    }
    let mut resources = BTreeSet::new();
    for resource in written {
        if !is_resource(resource) {
            let message = format!(
                "{resource:?}: write each resource by its name in lower case, with its group where it has one, for example \
                 secrets or widgets.example.com; there are no wildcards"
            );
            return Err(FieldError::new(field(), message));
        }
        let foreign = [".events.k8s.io", ".extensions"].iter().any(|group| resource.ends_with(group));
        if foreign || WITHOUT_API.contains(&resource.as_str()) {
            let message = format!(
                "{resource}: the API servers refuse the groups events.k8s.io (its objects are stored as events) and \
                 extensions, and resources without an API of their own"
            );
            return Err(FieldError::new(field(), message));
        }
        if !resources.insert(resource.clone()) {
            return Err(FieldError::new(field(), format!("{resource} is listed twice")));
        }
    }
    Ok(resources)
}

fn is_resource(text: &str) -> bool {
    let good = |label: &str, first: fn(&u8) -> bool| {
        label.as_bytes().first().is_some_and(first)
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let (name, group) = text.split_once('.').map_or((text, None), |(name, group)| (name, Some(group)));
    text.len() <= 253
        && good(name, u8::is_ascii_lowercase)
        && group.is_none_or(|group| {
            group
                .split('.')
                .all(|label| !label.ends_with('-') && good(label, |b| b.is_ascii_lowercase() || b.is_ascii_digit()))
        })
}

fn duration(field: &str, text: &str, shortest: SignedDuration, from: &str) -> Result<SignedDuration, FieldError> {
    let field = format!("{FIELD}.{field}");
    let duration = parse_duration(text).map_err(|error| FieldError::new(&field, error.to_string()))?;
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    if (shortest..=MAX_DURATION).contains(&duration) {
        return Ok(duration);
    }
    Err(FieldError::new(field, format!("{text} must be {from} to 87600h, for example 720h")))
}
