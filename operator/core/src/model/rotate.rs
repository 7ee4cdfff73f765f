//! Requests for renewals, rotations and revocations. Each new value is one request.

use std::collections::BTreeMap;

use keyplane_crds::{ClusterSpecSpec, Revoke, Rotate, keys};

use crate::pki::CaName;
use crate::rotation::Subject;
use crate::rotation::revocation::confirms;

/// The request values for one subject, by source: the spec for all subjects, the spec for this subject, and an
/// annotation. The sources are separate, so a value that is removed requests nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests(BTreeMap<&'static str, String>);

impl Requests {
    fn of<const N: usize>(values: [(&'static str, Option<&String>); N]) -> Self {
        Self(values.into_iter().filter_map(|(source, value)| Some((source, value?.clone()))).collect())
    }

    /// The annotations that record these requests as answered on a Secret.
    pub fn answer_annotations(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(source, value)| (format!("{}{source}", keys::ROTATED_BY_PREFIX), value.clone()))
    }

    /// Returns whether a Secret with these annotations leaves a request unanswered.
    #[must_use]
    pub fn are_open(&self, annotations: &BTreeMap<String, String>) -> bool {
        self.open(annotations).is_some()
    }

    /// Returns the value of a request that a Secret with these annotations does not answer yet.
    #[must_use]
    pub fn open(&self, annotations: &BTreeMap<String, String>) -> Option<String> {
        self.answer_annotations().find(|(key, value)| annotations.get(key) != Some(value)).map(|(_, value)| value)
    }
}

/// All requests of a ClusterSpec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotateRequests {
    spec: Rotate,
    annotations: BTreeMap<&'static str, String>,
}

impl RotateRequests {
    /// The request annotations.
    const ANNOTATIONS: [&'static str; 10] = [
        keys::ROTATE_CERTIFICATES_ANNOTATION,
        keys::ROTATE_CERTIFICATE_AUTHORITIES_ANNOTATION,
        keys::RENEW_CERTIFICATE_AUTHORITIES_ANNOTATION,
        keys::ROTATE_SERVICE_ACCOUNT_KEY_ANNOTATION,
        keys::ROTATE_ENCRYPTION_KEY_ANNOTATION,
        keys::COMPLETE_ROTATION_ANNOTATION,
        keys::ROLL_BACK_ROTATION_ANNOTATION,
        keys::REVOKE_CERTIFICATE_AUTHORITIES_ANNOTATION,
        keys::REVOKE_SERVICE_ACCOUNT_KEY_ANNOTATION,
        keys::CONFIRM_REVOCATION_ANNOTATION,
    ];

    pub(super) fn of_spec(spec: &ClusterSpecSpec) -> Self {
        Self { spec: spec.rotate.clone().unwrap_or_default(), annotations: BTreeMap::new() }
    }

    pub(super) fn and_annotations(self, annotations: &BTreeMap<String, String>) -> Self {
        let requested = Self::ANNOTATIONS.into_iter().filter_map(|name| Some((name, annotations.get(name)?.clone())));
        Self { annotations: requested.collect(), ..self }
    }

    /// The requests for new certificates with new keys.
    #[must_use]
    pub fn certificates(&self) -> Requests {
        let annotation = self.annotations.get(keys::ROTATE_CERTIFICATES_ANNOTATION);
        Requests::of([("spec", self.spec.certificates.as_ref()), ("annotation", annotation)])
    }

    /// The requests for a new encryption key.
    #[must_use]
    pub fn encryption_key(&self) -> Requests {
        let annotation = self.annotations.get(keys::ROTATE_ENCRYPTION_KEY_ANNOTATION);
        Requests::of([("spec", self.spec.encryption_key.as_ref()), ("annotation", annotation)])
    }

    /// The requests to renew CA certificates with the same keys.
    #[must_use]
    pub fn renewal(&self) -> Requests {
        let annotation = self.annotations.get(keys::RENEW_CERTIFICATE_AUTHORITIES_ANNOTATION);
        Requests::of([
            ("renewal", self.spec.renew_certificate_authorities.as_ref()),
            ("renewal-annotation", annotation),
        ])
    }

    /// The requests to rotate a CA or the service-account key.
    #[must_use]
    pub fn of(&self, subject: Subject) -> Requests {
        let own = match subject {
            Subject::ServiceAccountKey => {
                let annotation = self.annotations.get(keys::ROTATE_SERVICE_ACCOUNT_KEY_ANNOTATION);
                return Requests::of([("spec", self.spec.service_account_key.as_ref()), ("annotation", annotation)]);
            }
            Subject::CertificateAuthority(CaName::Cluster) => &self.spec.cluster_ca,
            Subject::CertificateAuthority(CaName::Etcd) => &self.spec.etcd_ca,
            Subject::CertificateAuthority(CaName::FrontProxy) => &self.spec.front_proxy_ca,
        };
        Requests::of([
            ("spec", self.spec.certificate_authorities.as_ref()),
            ("spec-of-one", own.as_ref()),
            ("annotation", self.annotations.get(keys::ROTATE_CERTIFICATE_AUTHORITIES_ANNOTATION)),
        ])
    }

    /// The requests to revoke a CA or the service-account key: a new one replaces it at once.
    #[must_use]
    pub fn revocation_of(&self, subject: Subject) -> Requests {
        let spec = self.spec.revoke.as_ref();
        let in_spec = |of: fn(&Revoke) -> &Option<String>| spec.and_then(|revoke| of(revoke).as_ref());
        let own = in_spec(match subject {
            Subject::CertificateAuthority(CaName::Cluster) => |revoke| &revoke.cluster_ca,
            Subject::CertificateAuthority(CaName::Etcd) => |revoke| &revoke.etcd_ca,
            Subject::CertificateAuthority(CaName::FrontProxy) => |revoke| &revoke.front_proxy_ca,
            Subject::ServiceAccountKey => |revoke| &revoke.service_account_key,
        });
        let (all, annotation) = match subject {
            Subject::CertificateAuthority(_) => {
                (in_spec(|revoke| &revoke.certificate_authorities), keys::REVOKE_CERTIFICATE_AUTHORITIES_ANNOTATION)
            }
            Subject::ServiceAccountKey => (None, keys::REVOKE_SERVICE_ACCOUNT_KEY_ANNOTATION),
        };
        Requests::of([
            ("revocation-in-spec", all),
            ("revocation-in-spec-of-one", own),
            ("revocation-in-annotation", self.annotations.get(annotation)),
        ])
    }

    /// Returns whether the revocation with this value is confirmed.
    #[must_use]
    pub fn confirms_revocation(&self, word: &str) -> bool {
        let in_spec = self.spec.revoke.as_ref().and_then(|revoke| revoke.confirm.as_ref());
        let texts = [in_spec, self.annotations.get(keys::CONFIRM_REVOCATION_ANNOTATION)];
        texts.into_iter().flatten().any(|text| confirms(text, word))
    }

    /// Returns whether the rotation that was requested with this value may complete: remove the old CA or key.
    #[must_use]
    pub fn completes(&self, requested: &str) -> bool {
        let annotation = self.annotations.get(keys::COMPLETE_ROTATION_ANNOTATION);
        [self.spec.complete.as_ref(), annotation].into_iter().flatten().any(|value| value == requested)
    }

    /// Returns whether the rotation that was requested with this value has to roll back.
    #[must_use]
    pub fn rolls_back(&self, requested: &str) -> bool {
        let annotation = self.annotations.get(keys::ROLL_BACK_ROTATION_ANNOTATION);
        [self.spec.roll_back.as_ref(), annotation].into_iter().flatten().any(|value| value == requested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(spec: Option<&str>, annotation: Option<&str>) -> Requests {
        let (spec, annotation) = (spec.map(str::to_owned), annotation.map(str::to_owned));
        Requests::of([("spec", spec.as_ref()), ("annotation", annotation.as_ref())])
    }

    #[test]
    fn new_value_is_one_request_and_removed_value_is_none() {
        let annotations = |requests: &Requests| requests.answer_annotations().collect::<BTreeMap<_, _>>();
        let first = requests(Some("2026"), None);
        assert_eq!(first.open(&BTreeMap::new()).as_deref(), Some("2026"));
        let answered = annotations(&first);
        assert!(!first.are_open(&answered));
        assert!(requests(Some("2027"), None).are_open(&answered));
        assert!(requests(Some("2026"), Some("now")).are_open(&answered));
        assert!(!requests(None, None).are_open(&answered));
    }

    #[test]
    fn ca_rotation_is_requested_for_one_ca_or_all() {
        let rotate = Rotate { etcd_ca: Some("a".to_owned()), ..Rotate::default() };
        let requests = RotateRequests { spec: rotate, annotations: BTreeMap::new() };
        let open = |requests: &RotateRequests| {
            Subject::ALL.map(|subject| requests.of(subject).open(&BTreeMap::new()).unwrap_or_default())
        };
        assert_eq!(open(&requests), ["", "a", "", ""]);
        let annotations =
            BTreeMap::from([(keys::ROTATE_CERTIFICATE_AUTHORITIES_ANNOTATION.to_owned(), "b".to_owned())]);
        let requests = RotateRequests::default().and_annotations(&annotations);
        assert_eq!(open(&requests), ["b", "b", "b", ""]);
    }
}
