//! Encodes the subject of a certificate as a distinguished name.

use keyplane_core::pki::{PkiError, Subject};
use rcgen::{DistinguishedName, DnType, DnValue};
use yasna::models::ObjectIdentifier;

const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const COMMON_NAME: &[u64] = &[2, 5, 4, 3];

/// Returns the name as a value of rcgen, which supports only one organization. See [`subject_der`] for more.
pub(super) fn distinguished_name(subject: &Subject) -> Result<DistinguishedName, PkiError> {
    let value = |text: &str| -> Result<DnValue, PkiError> {
        if is_printable(text) {
            let text = text.try_into().map_err(|_| PkiError::Name { value: text.to_owned() })?;
            Ok(DnValue::PrintableString(text))
        } else {
            Ok(DnValue::Utf8String(text.to_owned()))
        }
    };
    let mut name = DistinguishedName::new();
    if let Some(organization) = subject.organizations.first() {
        name.push(DnType::OrganizationName, value(organization)?);
    }
    name.push(DnType::CommonName, value(&subject.common_name)?);
    Ok(name)
}

/// Returns the name as DER with all organizations. rcgen keeps only one attribute of each type, and a user can have
/// several groups.
pub(super) fn subject_der(subject: &Subject) -> Vec<u8> {
    let organizations = subject.organizations.iter().map(|organization| (ORGANIZATION, organization));
    yasna::construct_der(|writer| {
        writer.write_sequence(|names| {
            for (attribute, text) in organizations.chain([(COMMON_NAME, &subject.common_name)]) {
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

/// Returns whether Go encodes the text as a `PrintableString`. The alphabet has no @, * or _.
fn is_printable(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&b))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use k8s_openapi::jiff::Timestamp;
    use keyplane_crds::KeyAlgorithm;

    use keyplane_core::pki::{CertificateTemplate, ExtendedUsage, first_certificate};

    use super::super::{generate, generate_ca, issue};
    use super::*;

    fn openssl(arguments: &[&str]) -> String {
        let output = Command::new("openssl").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn openssl_verifies_certificate_with_several_groups() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let now = Timestamp::now().as_second();
        for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384] {
            let ca = generate_ca("kubernetes", algorithm, at(now - 9), at(now + 9_000_000)).unwrap();
            let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
            let organizations = ["auditors", "entwickler_ä", "ops@example"].map(str::to_owned).to_vec();
            let subject = Subject { common_name: "jane".to_owned(), organizations };
            let template = CertificateTemplate {
                subject: subject.clone(),
                alternative_names: vec![],
                extended_usages: vec![ExtendedUsage::ClientAuth],
                not_before: at(now - 9),
                not_after: at(now + 1_000_000),
            };
            let pem = issue(&template, &key, &ca).unwrap();
            let facts = first_certificate("test", &pem).unwrap();
            assert_eq!(facts.subject, Some(subject));
            assert!(facts.is_signed_by(ca.facts()), "{algorithm:?}");
            assert_eq!(facts.not_after, at(now + 1_000_000));
            let file = |content: &str| {
                let mut file = tempfile::NamedTempFile::new().unwrap();
                file.write_all(content.as_bytes()).unwrap();
                file
            };
            let (leaf, root) = (file(&pem), file(ca.certificate_pem()));
            let (leaf, root) = (leaf.path().to_str().unwrap(), root.path().to_str().unwrap());
            openssl(&["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", root, leaf]);
            let said = openssl(&["x509", "-noout", "-subject", "-nameopt", "sep_multiline,utf8,sname", "-in", leaf]);
            let lines: Vec<_> = said.lines().skip(1).map(str::trim).collect();
            assert_eq!(lines, ["O=auditors", "O=entwickler_ä", "O=ops@example", "CN=jane"], "{said}");
        }
    }
}
