//! Requests for new keys: a value that is new asks once.

use std::collections::BTreeMap;

use keyplane_crds::{ClusterSpecSpec, GROUP, ROTATE_CERTIFICATES_ANNOTATION};

/// What was asked for, in the spec and by annotation. They are kept apart: one that goes away asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateRequests {
    spec: Option<String>,
    annotation: Option<String>,
}

impl CertificateRequests {
    pub(super) fn of_spec(spec: &ClusterSpecSpec) -> Self {
        let certificates = spec.rotate.as_ref().and_then(|rotate| rotate.certificates.clone());
        Self { spec: certificates, annotation: None }
    }

    pub(super) fn and_annotations(self, annotations: &BTreeMap<String, String>) -> Self {
        Self { annotation: annotations.get(ROTATE_CERTIFICATES_ANNOTATION).cloned(), ..self }
    }

    /// The annotations by which a Secret shows the requests that its certificates are an answer to.
    pub fn marks(&self) -> impl Iterator<Item = (String, String)> {
        let marks = [("spec", &self.spec), ("annotation", &self.annotation)];
        marks.into_iter().filter_map(|(source, value)| Some((format!("{GROUP}/rotated-by-{source}"), value.clone()?)))
    }

    /// Whether one of them is not answered yet by a Secret with these annotations.
    #[must_use]
    pub fn are_open(&self, annotations: &BTreeMap<String, String>) -> bool {
        self.marks().any(|(key, value)| annotations.get(&key) != Some(&value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(spec: Option<&str>, annotation: Option<&str>) -> CertificateRequests {
        CertificateRequests { spec: spec.map(str::to_owned), annotation: annotation.map(str::to_owned) }
    }

    #[test]
    fn each_new_value_asks_once_and_one_that_goes_away_for_nothing() {
        let annotations = |requests: &CertificateRequests| requests.marks().collect::<BTreeMap<_, _>>();
        let first = requests(Some("2026"), None);
        assert!(first.are_open(&BTreeMap::new()));
        let answered = annotations(&first);
        assert!(!first.are_open(&answered));
        assert!(requests(Some("2027"), None).are_open(&answered));
        assert!(requests(Some("2026"), Some("now")).are_open(&answered));
        assert!(!requests(None, None).are_open(&answered));
    }
}
