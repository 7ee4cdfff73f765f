//! Whether the authorities that are to be carried to a machine can be those of its cluster.
//!
//! From one authority to the next there is always a time in which both are trusted. Files that have none of the machine's
//! authorities come from an old backup or from another cluster, and would cut the machine off; unless what the machine has
//! was revoked, which the object then says.

use keyplane_core::pki::{CertificateFacts, certificates_in};

use super::index::MachineFile;

/// The files with authorities, each with the file beside it that shows that the authority is Keyplane's to replace: that of
/// an external etcd is its owner's.
const FILES: [(&str, Option<&str>); 5] = [
    ("/etc/kubernetes/pki/ca.crt", None),
    ("/var/lib/kubelet/ca.crt", None),
    ("/var/lib/kubernetes/ca.crt", None),
    ("/etc/kubernetes/pki/etcd/ca.crt", Some("/etc/kubernetes/pki/etcd/ca.key")),
    ("/etc/kubernetes/pki/front-proxy-ca.crt", Some("/etc/kubernetes/pki/front-proxy-ca.key")),
];

/// Why the files are not to be carried; nothing if they may. `found` reads the machine's files.
#[must_use]
pub fn strange(wanted: &[&MachineFile], found: impl Fn(&str) -> Option<Vec<u8>>, revoked: &[String]) -> Option<String> {
    let content = |path: &str| wanted.iter().find(|file| file.path == path).map(|file| file.content.clone());
    let differing = FILES.into_iter().find(|(path, beside)| {
        let (Some(wanted), Some(found)) = (content(path), found(path)) else { return false };
        let (wanted, found) = (authorities(&wanted), authorities(&found));
        let goes_on = found
            .iter()
            .any(|old| revoked.contains(&old.fingerprint()) || wanted.iter().any(|new| new.is_for_key_of(old)));
        !wanted.is_empty() && !found.is_empty() && !goes_on && beside.is_none_or(|beside| content(beside).is_some())
    });
    differing.map(|(path, _)| {
        format!(
            "{path} has another authority than what is to be carried, and it was not revoked, so nothing is carried: the \
             Secrets are of an old backup or of another cluster; if the machine is to have them, delete {path}"
        )
    })
}

fn authorities(file: &[u8]) -> Vec<CertificateFacts> {
    std::str::from_utf8(file).ok().and_then(|text| certificates_in("it", text).ok()).unwrap_or_default()
}

/// Whether a kubelet's client certificate is of none of the authorities that hold now, and another one of them is there for
/// it.
#[must_use]
pub fn is_cut_off(current: &str, given: &str, bundle: &str) -> bool {
    let bundle = authorities(bundle.as_bytes());
    let holds = |certificate: &str| {
        let first = authorities(certificate.as_bytes()).into_iter().next();
        first.map(|leaf| bundle.iter().any(|authority| leaf.is_signed_by(authority)))
    };
    holds(current) == Some(false) && holds(given) == Some(true)
}

#[cfg(test)]
mod tests {
    use keyplane_issuance::x509::generate;
    use std::time::Duration;

    use keyplane_crds::KeyAlgorithm;

    use super::*;
    use keyplane_core::pki::{Authority, CertificateOrder, ExtendedUsage, PrivateKey, Subject};
    use keyplane_issuance::x509::{issue, mint_authority};

    fn minted() -> Authority {
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        mint_authority("kubernetes", KeyAlgorithm::EcdsaP256, now, now + Duration::from_hours(10)).unwrap()
    }

    fn file(path: &str, content: &str) -> MachineFile {
        let (user, group) = ("root".to_owned(), "root".to_owned());
        MachineFile { path: path.to_owned(), mode: 0o600, user, group, content: content.as_bytes().to_vec() }
    }

    #[test]
    fn authorities_that_nothing_leads_to_are_not_carried() {
        let (old, new) = (minted(), minted());
        let both = format!("{}{}", new.certificate_pem(), old.certificate_pem());
        let told = |path: &str, found: &str, wanted: &str, revoked: &[String]| {
            let files = [file(path, wanted), file("/etc/kubernetes/pki/etcd/ca.key", "key")];
            let found = |asked: &str| (asked == path).then(|| found.as_bytes().to_vec());
            strange(&files.iter().collect::<Vec<_>>(), found, revoked)
        };
        for path in ["/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/etcd/ca.crt", "/var/lib/kubelet/ca.crt"] {
            let (old_pem, new_pem) = (old.certificate_pem(), new.certificate_pem());
            assert!(told(path, old_pem, new_pem, &[]).unwrap().contains(path));
            assert!(told(path, old_pem, new_pem, &[new.facts().fingerprint()]).is_some());
            assert_eq!(told(path, old_pem, new_pem, &[old.facts().fingerprint()]), None, "it was revoked");
            for (found, wanted) in [(old_pem, both.as_str()), (&both, new_pem), ("", new_pem), (old_pem, old_pem)] {
                assert_eq!(told(path, found, wanted, &[]), None);
            }
        }
        // Without its key the authority is not ours.
        let files = [file("/etc/kubernetes/pki/etcd/ca.crt", new.certificate_pem())];
        assert_eq!(strange(&[&files[0]], |_| Some(old.certificate_pem().as_bytes().to_vec()), &[]), None);
    }

    #[test]
    fn only_a_kubelet_whose_certificate_holds_no_more_gets_another_one() {
        let (old, new) = (minted(), minted());
        let leaf = |authority: &Authority| {
            let order = CertificateOrder {
                subject: Subject::user("system:node:w1"),
                alternative_names: vec![],
                extended_usages: vec![ExtendedUsage::ClientAuth],
                not_before: authority.facts().not_before,
                not_after: authority.facts().not_after,
            };
            issue(&order, &generate(KeyAlgorithm::EcdsaP256).unwrap(), authority).unwrap()
        };
        let (of_old, of_new) = (leaf(&old), leaf(&new));
        assert!(is_cut_off(&of_old, &of_new, new.certificate_pem()));
        let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
        assert!(!is_cut_off(&of_old, &of_new, &both), "its own is good");
        assert!(!is_cut_off(&of_new, &leaf(&new), new.certificate_pem()));
        assert!(!is_cut_off(&of_old, &leaf(&old), new.certificate_pem()), "what is given is as bad");
        assert!(!is_cut_off("", &of_new, new.certificate_pem()) && !is_cut_off(&of_old, &of_new, ""));
    }
}
