//! Whose certificate it is, as a distinguished name.

use rcgen::{DistinguishedName, DnType, DnValue};
use yasna::models::ObjectIdentifier;

use super::PkiError;

/// A certificate's subject as Kubernetes reads it: a user and its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// CN: the user.
    pub common_name: String,
    /// O: the groups, in their order in the certificate.
    pub organizations: Vec<String>,
}

const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const COMMON_NAME: &[u64] = &[2, 5, 4, 3];

impl Subject {
    /// A user without groups.
    #[must_use]
    pub fn user(name: impl Into<String>) -> Self {
        Self { common_name: name.into(), organizations: vec![] }
    }

    /// Whether both are the same user in the same groups. A signer may write the groups in another order: they are a set.
    #[must_use]
    pub fn is_same_user(&self, other: &Self) -> bool {
        let groups = |subject: &Self| {
            let mut groups = subject.organizations.clone();
            groups.sort();
            groups
        };
        self.common_name == other.common_name && groups(self) == groups(other)
    }

    /// As rcgen has it. Of several organizations it has room for one: see [`to_der`](Self::to_der).
    pub(super) fn distinguished_name(&self) -> Result<DistinguishedName, PkiError> {
        let value = |text: &str| -> Result<DnValue, PkiError> {
            if is_printable(text) {
                let text = text.try_into().map_err(|_| PkiError::Name { value: text.to_owned() })?;
                Ok(DnValue::PrintableString(text))
            } else {
                Ok(DnValue::Utf8String(text.to_owned()))
            }
        };
        let mut name = DistinguishedName::new();
        if let Some(organization) = self.organizations.first() {
            name.push(DnType::OrganizationName, value(organization)?);
        }
        name.push(DnType::CommonName, value(&self.common_name)?);
        Ok(name)
    }

    /// As DER. rcgen keeps one attribute of a kind, and a user of several groups has several organizations.
    pub(super) fn to_der(&self) -> Vec<u8> {
        let organizations = self.organizations.iter().map(|organization| (ORGANIZATION, organization));
        yasna::construct_der(|writer| {
            writer.write_sequence(|names| {
                for (attribute, text) in organizations.chain([(COMMON_NAME, &self.common_name)]) {
                    names.next().write_set(|set| {
                        set.next().write_sequence(|pair| {
                            pair.next().write_oid(&ObjectIdentifier::from_slice(attribute));
                            if is_printable(text) {
                                pair.next().write_printable_string(text);
                            } else {
                                pair.next().write_utf8_string(text);
                            }
                        });
                    });
                }
            });
        })
    }
}

/// As Go: PrintableString where the alphabet allows it, which has no @, * or _.
fn is_printable(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&b))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use k8s_openapi::jiff::Timestamp;
    use keyplane_crds::KeyAlgorithm;

    use super::super::{CertificateOrder, ExtendedUsage, PrivateKey, first_certificate, issue, mint_authority};
    use super::*;

    fn openssl(arguments: &[&str]) -> String {
        let output = Command::new("openssl").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn openssl_verifies_a_certificate_of_several_groups_and_reads_all_of_them() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let now = Timestamp::now().as_second();
        for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384] {
            let authority = mint_authority("kubernetes", algorithm, at(now - 9), at(now + 9_000_000)).unwrap();
            let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
            let organizations = ["auditors", "entwickler_ä", "ops@example"].map(str::to_owned).to_vec();
            let subject = Subject { common_name: "jane".to_owned(), organizations };
            let order = CertificateOrder {
                subject: subject.clone(),
                alternative_names: vec![],
                extended_usages: vec![ExtendedUsage::ClientAuth],
                not_before: at(now - 9),
                not_after: at(now + 1_000_000),
            };
            let pem = issue(&order, &key, &authority).unwrap();
            let facts = first_certificate("test", &pem).unwrap();
            assert_eq!(facts.subject, Some(subject));
            assert!(facts.is_signed_by(authority.facts()), "{algorithm:?}");
            assert_eq!(facts.not_after, at(now + 1_000_000));
            let file = |content: &str| {
                let mut file = tempfile::NamedTempFile::new().unwrap();
                file.write_all(content.as_bytes()).unwrap();
                file
            };
            let (leaf, root) = (file(&pem), file(authority.certificate_pem()));
            let (leaf, root) = (leaf.path().to_str().unwrap(), root.path().to_str().unwrap());
            openssl(&["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", root, leaf]);
            let said = openssl(&["x509", "-noout", "-subject", "-nameopt", "sep_multiline,utf8,sname", "-in", leaf]);
            let lines: Vec<_> = said.lines().skip(1).map(str::trim).collect();
            assert_eq!(lines, ["O=auditors", "O=entwickler_ä", "O=ops@example", "CN=jane"], "{said}");
        }
    }
}
