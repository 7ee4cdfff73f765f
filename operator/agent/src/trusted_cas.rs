//! Checks that the CAs in the node's objects belong to the node's cluster.
//!
//! During a CA rotation there is always a time in which both CAs are trusted. Files without any CA of the node come
//! from an old backup or from another cluster, and would disconnect the node. The exception is a CA of the node that
//! was revoked, which the object states in an annotation.

use keyplane_core::pki::{CertificateFacts, certificates_in};

use super::index::NodeFile;

/// The files with CAs, each with the key file that shows that Keyplane owns the CA: the CA of an external etcd belongs
/// to its owner.
const FILES: [(&str, Option<&str>); 5] = [
    ("/etc/kubernetes/pki/ca.crt", None),
    ("/var/lib/kubelet/ca.crt", None),
    ("/var/lib/kubernetes/ca.crt", None),
    ("/etc/kubernetes/pki/etcd/ca.crt", Some("/etc/kubernetes/pki/etcd/ca.key")),
    ("/etc/kubernetes/pki/front-proxy-ca.crt", Some("/etc/kubernetes/pki/front-proxy-ca.key")),
];

/// Returns the reason to reject the files, if any. `found` reads the node's files.
#[must_use]
pub fn foreign_cas(
    wanted: &[&NodeFile],
    found: impl Fn(&str) -> Option<Vec<u8>>,
    revoked: &[String],
) -> Option<String> {
    let content = |path: &str| wanted.iter().find(|file| file.path == path).map(|file| file.content.clone());
    let differing = FILES.into_iter().find(|(path, beside)| {
        let (Some(wanted), Some(found)) = (content(path), found(path)) else { return false };
        let (wanted, found) = (certificates(&wanted), certificates(&found));
        let is_continuous = found
            .iter()
            .any(|old| revoked.contains(&old.fingerprint()) || wanted.iter().any(|new| new.is_for_key_of(old)));
        !wanted.is_empty()
            && !found.is_empty()
            && !is_continuous
            && beside.is_none_or(|beside| content(beside).is_some())
    });
    differing.map(|(path, _)| {
        format!(
            "{path} has another CA than the node's Secret or ConfigMap, and that CA was not revoked: no file is written, \
             because the objects come from an old backup or from another cluster; to apply them anyway, delete {path}"
        )
    })
}

fn certificates(file: &[u8]) -> Vec<CertificateFacts> {
    std::str::from_utf8(file).ok().and_then(|text| certificates_in("it", text).ok()).unwrap_or_default()
}

/// Returns whether no CA of the bundle has issued the kubelet's client certificate, while one has issued the
/// replacement.
#[must_use]
pub fn needs_client_replacement(current: &str, replacement: &str, bundle: &str) -> bool {
    let bundle = certificates(bundle.as_bytes());
    let is_trusted = |certificate: &str| {
        let first = certificates(certificate.as_bytes()).into_iter().next();
        first.map(|leaf| bundle.iter().any(|ca| leaf.is_signed_by(ca)))
    };
    is_trusted(current) == Some(false) && is_trusted(replacement) == Some(true)
}

#[cfg(test)]
mod tests {
    use keyplane_issuance::x509::generate;
    use std::time::Duration;

    use keyplane_crds::KeyAlgorithm;

    use super::*;
    use keyplane_core::pki::{CertificateAuthority, CertificateTemplate, ExtendedUsage, Subject};
    use keyplane_issuance::x509::{generate_ca, issue};

    fn new_ca() -> CertificateAuthority {
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        generate_ca("kubernetes", KeyAlgorithm::EcdsaP256, now, now + Duration::from_hours(10)).unwrap()
    }

    fn file(path: &str, content: &str) -> NodeFile {
        let (user, group) = ("root".to_owned(), "root".to_owned());
        NodeFile { path: path.to_owned(), mode: 0o600, user, group, content: content.as_bytes().to_vec() }
    }

    #[test]
    fn rejects_cas_unrelated_to_those_of_the_node() {
        let (old, new) = (new_ca(), new_ca());
        let both = format!("{}{}", new.certificate_pem(), old.certificate_pem());
        let rejection = |path: &str, found: &str, wanted: &str, revoked: &[String]| {
            let files = [file(path, wanted), file("/etc/kubernetes/pki/etcd/ca.key", "key")];
            let found = |read: &str| (read == path).then(|| found.as_bytes().to_vec());
            foreign_cas(&files.iter().collect::<Vec<_>>(), found, revoked)
        };
        for path in ["/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/etcd/ca.crt", "/var/lib/kubelet/ca.crt"] {
            let (old_pem, new_pem) = (old.certificate_pem(), new.certificate_pem());
            assert!(rejection(path, old_pem, new_pem, &[]).unwrap().contains(path));
            assert!(rejection(path, old_pem, new_pem, &[new.facts().fingerprint()]).is_some());
            assert_eq!(rejection(path, old_pem, new_pem, &[old.facts().fingerprint()]), None, "it was revoked");
            for (found, wanted) in [(old_pem, both.as_str()), (&both, new_pem), ("", new_pem), (old_pem, old_pem)] {
                assert_eq!(rejection(path, found, wanted, &[]), None);
            }
        }
        // Without its key, the CA is not Keyplane's.
        let files = [file("/etc/kubernetes/pki/etcd/ca.crt", new.certificate_pem())];
        assert_eq!(foreign_cas(&[&files[0]], |_| Some(old.certificate_pem().as_bytes().to_vec()), &[]), None);
    }

    #[test]
    fn replaces_only_client_certificates_of_untrusted_cas() {
        let (old, new) = (new_ca(), new_ca());
        let leaf = |ca: &CertificateAuthority| {
            let template = CertificateTemplate {
                subject: Subject::user("system:node:w1"),
                alternative_names: vec![],
                extended_usages: vec![ExtendedUsage::ClientAuth],
                not_before: ca.facts().not_before,
                not_after: ca.facts().not_after,
            };
            issue(&template, &generate(KeyAlgorithm::EcdsaP256).unwrap(), ca).unwrap()
        };
        let (of_old, of_new) = (leaf(&old), leaf(&new));
        assert!(needs_client_replacement(&of_old, &of_new, new.certificate_pem()));
        let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
        assert!(!needs_client_replacement(&of_old, &of_new, &both), "its own CA is trusted");
        assert!(!needs_client_replacement(&of_new, &leaf(&new), new.certificate_pem()));
        assert!(
            !needs_client_replacement(&of_old, &leaf(&old), new.certificate_pem()),
            "the CA of the replacement is not trusted either"
        );
        assert!(
            !needs_client_replacement("", &of_new, new.certificate_pem())
                && !needs_client_replacement(&of_old, &of_new, "")
        );
    }
}
