//! Requests for new keys: a value that is new asks once.

use std::collections::BTreeMap;

use keyplane_crds::{ClusterSpecSpec, Revoke, Rotate, keys};

use crate::pki::AuthorityName;
use crate::rotation::Subject;
use crate::rotation::revocation::confirms;

/// What was asked for, by where: in the spec, there for this one alone, and by annotation. They are kept apart: one that
/// goes away asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests(BTreeMap<&'static str, String>);

impl Requests {
    fn of<const N: usize>(values: [(&'static str, Option<&String>); N]) -> Self {
        Self(values.into_iter().filter_map(|(source, value)| Some((source, value?.clone()))).collect())
    }

    /// The annotations by which a Secret shows the requests that it is an answer to.
    pub fn marks(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(source, value)| (format!("{}{source}", keys::ROTATED_BY_PREFIX), value.clone()))
    }

    /// Whether one of them is not answered yet by a Secret with these annotations.
    #[must_use]
    pub fn are_open(&self, annotations: &BTreeMap<String, String>) -> bool {
        self.open(annotations).is_some()
    }

    /// The value of one that is not answered yet by a Secret with these annotations.
    #[must_use]
    pub fn open(&self, annotations: &BTreeMap<String, String>) -> Option<String> {
        self.marks().find(|(key, value)| annotations.get(key) != Some(value)).map(|(_, value)| value)
    }
}

/// All that a ClusterSpec asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotateRequests {
    spec: Rotate,
    annotations: BTreeMap<&'static str, String>,
}

impl RotateRequests {
    /// The annotations that ask for something.
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
        let asked = Self::ANNOTATIONS.into_iter().filter_map(|name| Some((name, annotations.get(name)?.clone())));
        Self { annotations: asked.collect(), ..self }
    }

    /// For new certificates with new keys.
    #[must_use]
    pub fn certificates(&self) -> Requests {
        let annotation = self.annotations.get(keys::ROTATE_CERTIFICATES_ANNOTATION);
        Requests::of([("spec", self.spec.certificates.as_ref()), ("annotation", annotation)])
    }

    /// For another key of what is stored.
    #[must_use]
    pub fn encryption_key(&self) -> Requests {
        let annotation = self.annotations.get(keys::ROTATE_ENCRYPTION_KEY_ANNOTATION);
        Requests::of([("spec", self.spec.encryption_key.as_ref()), ("annotation", annotation)])
    }

    /// For other certificates of authorities, with the same keys.
    #[must_use]
    pub fn renewal(&self) -> Requests {
        let annotation = self.annotations.get(keys::RENEW_CERTIFICATE_AUTHORITIES_ANNOTATION);
        Requests::of([
            ("renewal", self.spec.renew_certificate_authorities.as_ref()),
            ("renewal-annotation", annotation),
        ])
    }

    /// For another authority or key.
    #[must_use]
    pub fn of(&self, subject: Subject) -> Requests {
        let own = match subject {
            Subject::ServiceAccountKey => {
                let annotation = self.annotations.get(keys::ROTATE_SERVICE_ACCOUNT_KEY_ANNOTATION);
                return Requests::of([("spec", self.spec.service_account_key.as_ref()), ("annotation", annotation)]);
            }
            Subject::Authority(AuthorityName::Cluster) => &self.spec.cluster_ca,
            Subject::Authority(AuthorityName::Etcd) => &self.spec.etcd_ca,
            Subject::Authority(AuthorityName::FrontProxy) => &self.spec.front_proxy_ca,
        };
        Requests::of([
            ("spec", self.spec.certificate_authorities.as_ref()),
            ("spec-of-one", own.as_ref()),
            ("annotation", self.annotations.get(keys::ROTATE_CERTIFICATE_AUTHORITIES_ANNOTATION)),
        ])
    }

    /// For another authority or key at once, with nothing left of this one.
    #[must_use]
    pub fn revocation_of(&self, subject: Subject) -> Requests {
        let spec = self.spec.revoke.as_ref();
        let in_spec = |of: fn(&Revoke) -> &Option<String>| spec.and_then(|revoke| of(revoke).as_ref());
        let own = in_spec(match subject {
            Subject::Authority(AuthorityName::Cluster) => |revoke| &revoke.cluster_ca,
            Subject::Authority(AuthorityName::Etcd) => |revoke| &revoke.etcd_ca,
            Subject::Authority(AuthorityName::FrontProxy) => |revoke| &revoke.front_proxy_ca,
            Subject::ServiceAccountKey => |revoke| &revoke.service_account_key,
        });
        let (all, annotation) = match subject {
            Subject::Authority(_) => {
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

    /// Whether the revocation with this word is confirmed.
    #[must_use]
    pub fn confirms_revocation(&self, word: &str) -> bool {
        let in_spec = self.spec.revoke.as_ref().and_then(|revoke| revoke.confirm.as_ref());
        let texts = [in_spec, self.annotations.get(keys::CONFIRM_REVOCATION_ANNOTATION)];
        texts.into_iter().flatten().any(|text| confirms(text, word))
    }

    /// Whether the rotation that was asked for with this value may take the old one away.
    #[must_use]
    pub fn completes(&self, requested: &str) -> bool {
        let annotation = self.annotations.get(keys::COMPLETE_ROTATION_ANNOTATION);
        [self.spec.complete.as_ref(), annotation].into_iter().flatten().any(|value| value == requested)
    }

    /// Whether the rotation that was asked for with this value is to be taken back.
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
    fn each_new_value_asks_once_and_one_that_goes_away_for_nothing() {
        let annotations = |requests: &Requests| requests.marks().collect::<BTreeMap<_, _>>();
        let first = requests(Some("2026"), None);
        assert_eq!(first.open(&BTreeMap::new()).as_deref(), Some("2026"));
        let answered = annotations(&first);
        assert!(!first.are_open(&answered));
        assert!(requests(Some("2027"), None).are_open(&answered));
        assert!(requests(Some("2026"), Some("now")).are_open(&answered));
        assert!(!requests(None, None).are_open(&answered));
    }

    #[test]
    fn an_authority_is_asked_for_alone_or_with_the_others() {
        let rotate = Rotate { etcd_ca: Some("a".to_owned()), ..Rotate::default() };
        let asked = RotateRequests { spec: rotate, annotations: BTreeMap::new() };
        let open = |asked: &RotateRequests| {
            Subject::ALL.map(|subject| asked.of(subject).open(&BTreeMap::new()).unwrap_or_default())
        };
        assert_eq!(open(&asked), ["", "a", "", ""]);
        let annotations =
            BTreeMap::from([(keys::ROTATE_CERTIFICATE_AUTHORITIES_ANNOTATION.to_owned(), "b".to_owned())]);
        let asked = RotateRequests::default().and_annotations(&annotations);
        assert_eq!(open(&asked), ["b", "b", "b", ""]);
    }
}
