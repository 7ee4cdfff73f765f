//! The confirmation of a revocation, and the list of revoked CAs.

use super::Subject;
use crate::checksum::checksum;

/// The number of revoked CAs in the list. A node that was off during more revocations needs manual repair.
const MAX_REVOKED: usize = 8;

/// The length of the digest in a confirmation: long enough to prevent mistakes. A confirmation is no secret.
const DIGEST_LENGTH: usize = 10;

/// Returns the text that confirms the revocation of this subject for this request. `invalidated` are the certificates
/// or keys that become invalid: if another one appears, the text changes.
#[must_use]
pub fn confirmation(subject: Subject, requested: &str, invalidated: &[String]) -> String {
    let parts = std::iter::once(("requested", requested.as_bytes()));
    let mut digest = checksum(parts.chain(invalidated.iter().map(|one| ("going", one.as_bytes()))));
    digest.truncate(DIGEST_LENGTH);
    format!("{}-{digest}", subject.name())
}

/// Returns whether a text contains the confirmation.
#[must_use]
pub fn confirms(text: &str, confirmation_text: &str) -> bool {
    text.split([',', ' ']).any(|found| found == confirmation_text)
}

/// Adds newly revoked CAs to the front of the list.
#[must_use]
pub fn prepend_revoked(new: &[String], before: &[String]) -> String {
    let older = before.iter().filter(|one| !new.contains(one));
    new.iter().chain(older).take(MAX_REVOKED).map(String::as_str).collect::<Vec<_>>().join(",")
}

/// Parses the list.
#[must_use]
pub fn revoked(text: &str) -> Vec<String> {
    text.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::CaName;

    const CA: Subject = Subject::CertificateAuthority(CaName::Cluster);

    #[test]
    fn confirmation_is_specific_to_subject_request_and_content() {
        let invalidated = |name: &str| vec![name.to_owned()];
        let confirmation_text = confirmation(CA, "leak", &invalidated("a"));
        assert!(
            confirmation_text.starts_with("ca-") && confirmation_text.len() == "ca-".len() + DIGEST_LENGTH,
            "{confirmation_text}"
        );
        for other in [
            confirmation(Subject::ServiceAccountKey, "leak", &invalidated("a")),
            confirmation(CA, "leak2", &invalidated("a")),
            confirmation(CA, "leak", &invalidated("b")),
            confirmation(CA, "leak", &[invalidated("a"), invalidated("b")].concat()),
        ] {
            assert!(!confirms(&other, &confirmation_text), "{other}");
        }
        assert!(
            confirms(&format!("etcd-ca-0123456789,{confirmation_text}"), &confirmation_text)
                && confirms(&format!("{confirmation_text} x"), &confirmation_text)
        );
        assert!(
            !confirms(&confirmation_text[..8], &confirmation_text)
                && !confirms("", &confirmation_text)
                && !confirms(&format!("etcd-{confirmation_text}"), &confirmation_text)
        );
    }

    #[test]
    fn list_keeps_the_most_recent_revocations() {
        let all: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        let list = prepend_revoked(&all[..2], &all[1..]);
        assert_eq!(revoked(&list), all[..8]);
        assert!(revoked("").is_empty());
    }
}
