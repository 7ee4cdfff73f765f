//! CSRs for kubelet certificates of another CA, and checks of the issued certificates.

use k8s_openapi::jiff::Timestamp;

use keyplane_core::agent_report::LeafReport;
use keyplane_core::pki::{
    AlternativeName, CertificateFacts, PrivateKey, Subject, authority_key_id, certificates_in, first_certificate,
};

/// Directory of the kubelet's certificate store.
pub const DIRECTORY: &str = "/var/lib/kubelet/pki";

/// One of the kubelet's two certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Client certificate for the API server.
    Client,
    /// Serving certificate.
    Server,
}

impl Kind {
    /// Both certificates. The client certificate comes first, because the CSR for the other one uses it.
    pub const ALL: [Self; 2] = [Self::Client, Self::Server];

    /// The name in the kubelet's certificate store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "kubelet-client",
            Self::Server => "kubelet-server",
        }
    }

    /// The symbolic link to the current pair.
    #[must_use]
    pub fn link(self) -> String {
        format!("{DIRECTORY}/{}-current.pem", self.name())
    }

    /// The file name of a pair that is stored at this time, as in the kubelet's certificate store.
    #[must_use]
    pub fn file(self, now: Timestamp) -> String {
        format!("{DIRECTORY}/{}-{}.pem", self.name(), now.strftime("%Y-%m-%d-%H-%M-%S"))
    }

    /// Returns the outdated files: those of this kind that are older than the predecessor of the link's target. Files
    /// newer than the target belong to a change that is not finished yet.
    #[must_use]
    pub fn outdated<'a>(self, names: &[&'a str], target: &str) -> Vec<&'a str> {
        if !self.is_stored(target) {
            return vec![];
        }
        // The names contain the time of storing, so the order of names is the order of time.
        let mut former: Vec<_> = names.iter().copied().filter(|name| self.is_stored(name) && *name < target).collect();
        former.sort_unstable();
        former.pop();
        former
    }

    /// Returns whether the file name has the format of the kubelet's certificate store.
    fn is_stored(self, name: &str) -> bool {
        const TIME: &str = "dddd-dd-dd-dd-dd-dd";
        let time = name.strip_prefix(self.name()).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".pem"));
        time.is_some_and(|time| {
            let fits =
                |(found, wanted): (char, char)| if wanted == 'd' { found.is_ascii_digit() } else { found == wanted };
            time.len() == TIME.len() && time.chars().zip(TIME.chars()).all(fits)
        })
    }

    /// The signer name of the CSR.
    #[must_use]
    pub const fn signer(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Server => "kubernetes.io/kubelet-serving",
        }
    }

    /// The usages of the CSR, as a kubelet with an ECDSA key requests them.
    #[must_use]
    pub fn usages(self) -> Vec<String> {
        let usage = match self {
            Self::Client => "client auth",
            Self::Server => "server auth",
        };
        vec!["digital signature".to_owned(), usage.to_owned()]
    }
}

/// Finds a CA in a bundle by the SHA-256 of its certificate.
///
/// # Errors
/// The bundle does not have the CA.
pub fn find_ca(bundle: &str, sha256: &str) -> Result<CertificateFacts, String> {
    let all = certificates_in("the node's ca.crt", bundle).map_err(|error| error.to_string())?;
    let missing = || "the CA for the kubelet's certificates is not in the node's ca.crt yet".to_owned();
    all.into_iter().find(|facts| facts.fingerprint() == sha256.to_lowercase()).ok_or_else(missing)
}

/// Parameters of a kubelet's CSR.
#[derive(Debug, PartialEq, Eq)]
pub struct CsrTemplate {
    /// The certificate to replace.
    pub kind: Kind,
    /// Subject.
    pub subject: Subject,
    /// Subject alternative names.
    pub names: Vec<AlternativeName>,
}

/// Returns the CSR that replaces the current pair; `None` if the CA has already issued the pair.
///
/// # Errors
/// The current certificate is not one of this node.
pub fn csr_template(
    kind: Kind,
    node: &str,
    current: &str,
    ca: &CertificateFacts,
) -> Result<Option<CsrTemplate>, String> {
    let link = kind.link();
    let facts = first_certificate(&link, &certificate_part(current)).map_err(|error| error.to_string())?;
    if facts.is_signed_by(ca) {
        return Ok(None);
    }
    let subject =
        Subject { common_name: format!("system:node:{node}"), organizations: vec!["system:nodes".to_owned()] };
    if facts.subject.as_ref() != Some(&subject) {
        return Err(format!("{link} is not a certificate of system:node:{node}"));
    }
    let names = match kind {
        Kind::Client => vec![],
        Kind::Server => facts
            .alternative_names
            .ok_or_else(|| format!("{link} has a subject alternative name of an unsupported type"))?,
    };
    Ok(Some(CsrTemplate { kind, subject, names }))
}

/// Checks that the issued certificate matches the CSR.
///
/// # Errors
/// The difference.
pub fn check(template: &CsrTemplate, issued: &str, key: &PrivateKey, ca: &CertificateFacts) -> Result<(), String> {
    let what = template.kind.name();
    let facts = first_certificate(what, issued).map_err(|error| error.to_string())?;
    if facts.subject_public_key_info != key.subject_public_key_info() {
        return Err(format!("the new certificate {what} has another key than the CSR"));
    }
    if facts.subject.as_ref() != Some(&template.subject) {
        return Err(format!("the new certificate {what} has another subject than the CSR"));
    }
    let mut names = template.names.clone();
    names.sort();
    if template.kind == Kind::Server && facts.alternative_names.as_ref() != Some(&names) {
        return Err(format!("the new certificate {what} has other names than the CSR"));
    }
    if !facts.is_signed_by(ca) {
        return Err(format!("the cluster still signs {what} with another CA"));
    }
    Ok(())
}

/// Returns the certificates of a file that also has a key.
#[must_use]
pub fn certificate_part(pair: &str) -> String {
    let blocks = pem::parse_many(pair).unwrap_or_default();
    let certificates: Vec<_> = blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE").collect();
    pem::encode_many_config(&certificates, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

/// Returns the agent's report on a pair; `None` if there is no pair.
#[must_use]
pub fn report(pair: &str) -> Option<LeafReport> {
    let facts = first_certificate("it", &certificate_part(pair)).ok()?;
    let authority_key_id = authority_key_id(&facts);
    Some(LeafReport { issuer: facts.issuer, authority_key_id, serial: facts.serial, not_after: facts.not_after })
}

#[cfg(test)]
mod tests {
    use keyplane_issuance::x509::generate;
    use std::time::Duration;

    use keyplane_crds::KeyAlgorithm;

    use super::*;
    use keyplane_core::pki::{CertificateAuthority, CertificateTemplate, ExtendedUsage};
    use keyplane_issuance::x509::{generate_ca, issue};

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn new_ca() -> CertificateAuthority {
        generate_ca("kubernetes", KeyAlgorithm::EcdsaP256, now(), now() + Duration::from_hours(10)).unwrap()
    }

    fn subject(name: &str) -> Subject {
        Subject { common_name: name.to_owned(), organizations: vec!["system:nodes".to_owned()] }
    }

    fn leaf(ca: &CertificateAuthority, name: &str, names: &[&str], key: &PrivateKey) -> String {
        let template = CertificateTemplate {
            subject: subject(name),
            alternative_names: names.iter().map(|name| AlternativeName::parse(name)).collect(),
            extended_usages: vec![ExtendedUsage::ServerAuth],
            not_before: now(),
            not_after: now() + Duration::from_hours(1),
        };
        issue(&template, key, ca).unwrap()
    }

    fn key() -> PrivateKey {
        generate(KeyAlgorithm::EcdsaP256).unwrap()
    }

    fn sha256(ca: &CertificateAuthority) -> String {
        ca.facts().fingerprint()
    }

    #[test]
    fn finds_ca_in_bundle_by_fingerprint() {
        let (old, new) = (new_ca(), new_ca());
        let bundle = format!("{}{}", old.certificate_pem(), new.certificate_pem());
        assert_eq!(find_ca(&bundle, &sha256(&new)).unwrap(), *new.facts());
        assert!(find_ca(old.certificate_pem(), &sha256(&new)).unwrap_err().contains("not in the node's ca.crt"));
    }

    #[test]
    fn csr_template_keeps_names_and_is_none_for_current_ca() {
        let (old, new, key) = (new_ca(), new_ca(), key());
        // As the kubelet's store has it: both in one file.
        let pair = format!("{}{}", leaf(&old, "system:node:w1", &["w1", "10.0.0.9"], &key), key.pem());
        assert_eq!(csr_template(Kind::Server, "w1", &pair, old.facts()), Ok(None));
        let template = csr_template(Kind::Server, "w1", &pair, new.facts()).unwrap().unwrap();
        assert_eq!(template.names, [AlternativeName::parse("w1"), AlternativeName::parse("10.0.0.9")]);
        assert_eq!(csr_template(Kind::Client, "w1", &pair, new.facts()).unwrap().unwrap().names, []);
        let error = csr_template(Kind::Client, "w2", &pair, new.facts()).unwrap_err();
        assert!(error.contains("not a certificate of system:node:w2"), "{error}");
        assert!(csr_template(Kind::Client, "w1", "", new.facts()).is_err());
    }

    #[test]
    fn rejects_certificate_that_differs_from_the_csr() {
        let (old, new, key) = (new_ca(), new_ca(), key());
        let template = CsrTemplate {
            kind: Kind::Server,
            subject: subject("system:node:w1"),
            names: vec![AlternativeName::parse("w1")],
        };
        let check = |issued: &str| check(&template, issued, &key, new.facts());
        assert_eq!(check(&leaf(&new, "system:node:w1", &["w1"], &key)), Ok(()));
        for (issued, words) in [
            (leaf(&old, "system:node:w1", &["w1"], &key), "still signs kubelet-server with another CA"),
            (leaf(&new, "system:node:w1", &["w1"], &self::key()), "another key"),
            (leaf(&new, "system:node:w2", &["w1"], &key), "another subject"),
            (leaf(&new, "system:node:w1", &["w2"], &key), "other names"),
            (String::new(), "not a certificate in PEM form"),
        ] {
            let error = check(&issued).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn report_contains_no_private_key() {
        let (ca, key) = (new_ca(), key());
        let pair = format!("{}{}", leaf(&ca, "system:node:w1", &["w1"], &key), key.pem());
        let report = report(&pair).unwrap();
        assert_eq!(report.issuer, "kubernetes");
        assert_eq!(report.authority_key_id.as_deref().map(str::len), Some(40));
        assert!(!serde_json::to_string(&report).unwrap().contains("PRIVATE"));
        assert_eq!(self::report("nothing"), None);
    }

    #[test]
    fn pair_is_outdated_after_two_newer_pairs() {
        let all = [
            "kubelet-client-2026-11-20-12-00-00.pem",
            "kubelet-client-2026-11-23-12-00-00.pem",
            "kubelet-client-2026-11-21-12-00-00.pem",
            "kubelet-client-2026-11-22-12-00-00.pem",
            "kubelet-client-current.pem",
            "kubelet-client-2026-11-19.pem",
            "kubelet-client-2026-11-19-12-00-00.pem.bak",
            "kubelet-server-2026-11-19-12-00-00.pem",
            "kubelet.crt",
        ];
        assert_eq!(Kind::Client.outdated(&all, all[3]), [all[0]], "the newest pair may not be linked yet");
        assert_eq!(Kind::Client.outdated(&all, all[1]), [all[0], all[2]]);
        assert!(Kind::Client.outdated(&all, all[2]).is_empty() && Kind::Client.outdated(&all, all[0]).is_empty());
        assert!(Kind::Server.outdated(&all, all[7]).is_empty());
        // For a link to another file, the age of the pairs is unknown.
        assert!(Kind::Client.outdated(&all, "mine.pem").is_empty());
    }

    #[test]
    fn file_names_match_the_kubelets_certificate_store() {
        assert_eq!(Kind::Client.file(now()), "/var/lib/kubelet/pki/kubelet-client-2026-11-23-12-00-00.pem");
        assert_eq!(Kind::Server.link(), "/var/lib/kubelet/pki/kubelet-server-current.pem");
    }
}
