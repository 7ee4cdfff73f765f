//! What confirms a revocation.

use super::Subject;
use crate::checksum::checksum;

/// So many are remembered: machines that were off for longer than that many revocations are looked after by hand.
const REMEMBERED: usize = 8;

/// Long enough that nobody confirms another one by mistake. It is no secret.
const LENGTH: usize = 10;

/// The word that confirms that what is revoked is this, for this request. `going` names the certificates or keys that go:
/// where another has come since, the word is another.
#[must_use]
pub fn confirmation(subject: Subject, requested: &str, going: &[String]) -> String {
    let parts = std::iter::once(("requested", requested.as_bytes()));
    let mut digest = checksum(parts.chain(going.iter().map(|one| ("going", one.as_bytes()))));
    digest.truncate(LENGTH);
    format!("{}-{digest}", subject.name())
}

/// Whether a text has the word.
#[must_use]
pub fn confirms(text: &str, word: &str) -> bool {
    text.split([',', ' ']).any(|found| found == word)
}

/// The list with these before the ones that are in it.
#[must_use]
pub fn remembered(new: &[String], before: &[String]) -> String {
    let older = before.iter().filter(|one| !new.contains(one));
    new.iter().chain(older).take(REMEMBERED).map(String::as_str).collect::<Vec<_>>().join(",")
}

/// Reads such a list.
#[must_use]
pub fn revoked(text: &str) -> Vec<String> {
    text.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::AuthorityName;

    const CA: Subject = Subject::Authority(AuthorityName::Cluster);

    #[test]
    fn a_word_is_for_one_authority_one_request_and_what_is_there_now() {
        let going = |name: &str| vec![name.to_owned()];
        let word = confirmation(CA, "leak", &going("a"));
        assert!(word.starts_with("ca-") && word.len() == "ca-".len() + LENGTH, "{word}");
        for other in [
            confirmation(Subject::ServiceAccountKey, "leak", &going("a")),
            confirmation(CA, "leak2", &going("a")),
            confirmation(CA, "leak", &going("b")),
            confirmation(CA, "leak", &[going("a"), going("b")].concat()),
        ] {
            assert!(!confirms(&other, &word), "{other}");
        }
        assert!(confirms(&format!("etcd-ca-0123456789,{word}"), &word) && confirms(&format!("{word} x"), &word));
        assert!(!confirms(&word[..8], &word) && !confirms("", &word) && !confirms(&format!("etcd-{word}"), &word));
    }

    #[test]
    fn the_last_revoked_ones_are_remembered() {
        let all: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        let list = remembered(&all[..2], &all[1..]);
        assert_eq!(revoked(&list), all[..8]);
        assert!(revoked("").is_empty());
    }
}
