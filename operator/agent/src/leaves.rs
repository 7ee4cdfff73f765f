//! Which certificates a kubelet needs from another authority, and whether what came is what was asked for.

use k8s_openapi::jiff::Timestamp;

use keyplane_core::agent_report::LeafReport;
use keyplane_core::pki::{
    AlternativeName, CertificateFacts, PrivateKey, Subject, authority_key_id, certificates_in, first_certificate,
};

/// Where the kubelet keeps its pairs.
pub const DIRECTORY: &str = "/var/lib/kubelet/pki";

/// One of the kubelet's two certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With which it goes to the API server.
    Client,
    /// Which it presents.
    Server,
}

impl Kind {
    /// Both. The client's comes first: with it the other is asked for.
    pub const ALL: [Self; 2] = [Self::Client, Self::Server];

    /// How the kubelet's certificate store names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "kubelet-client",
            Self::Server => "kubelet-server",
        }
    }

    /// The link to the pair that is in use.
    #[must_use]
    pub fn link(self) -> String {
        format!("{DIRECTORY}/{}-current.pem", self.name())
    }

    /// The file of a pair that is stored at that time, as the kubelet's certificate store names it.
    #[must_use]
    pub fn file(self, now: Timestamp) -> String {
        format!("{DIRECTORY}/{}-{}.pem", self.name(), now.strftime("%Y-%m-%d-%H-%M-%S"))
    }

    /// Which of the files beside the link are of no use any more: those of this kind that are older than the one before the
    /// link's target. What is newer than that one is somebody's work that is not done yet.
    #[must_use]
    pub fn outdated<'a>(self, names: &[&'a str], target: &str) -> Vec<&'a str> {
        if !self.is_stored(target) {
            return vec![];
        }
        // The names tell when each was stored, and so do they in order.
        let mut former: Vec<_> = names.iter().copied().filter(|name| self.is_stored(name) && *name < target).collect();
        former.sort_unstable();
        former.pop();
        former
    }

    /// Whether a file has a name that the kubelet's certificate store gives.
    fn is_stored(self, name: &str) -> bool {
        const TIME: &str = "dddd-dd-dd-dd-dd-dd";
        let time = name.strip_prefix(self.name()).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".pem"));
        time.is_some_and(|time| {
            let fits =
                |(found, wanted): (char, char)| if wanted == 'd' { found.is_ascii_digit() } else { found == wanted };
            time.len() == TIME.len() && time.chars().zip(TIME.chars()).all(fits)
        })
    }

    /// Who signs it.
    #[must_use]
    pub const fn signer(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Server => "kubernetes.io/kubelet-serving",
        }
    }

    /// What it is for, as a kubelet with an ECDSA key asks.
    #[must_use]
    pub fn usages(self) -> Vec<String> {
        let usage = match self {
            Self::Client => "client auth",
            Self::Server => "server auth",
        };
        vec!["digital signature".to_owned(), usage.to_owned()]
    }
}

/// The authority of that SHA-256 in a bundle.
///
/// # Errors
/// If the bundle has none such.
pub fn authority(bundle: &str, sha256: &str) -> Result<CertificateFacts, String> {
    let all = certificates_in("the machine's ca.crt", bundle).map_err(|error| error.to_string())?;
    let told = || "the authority for the kubelet's certificates is not in the machine's ca.crt yet".to_owned();
    all.into_iter().find(|facts| facts.fingerprint() == sha256.to_lowercase()).ok_or_else(told)
}

/// What is to be asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Order {
    /// Which of the two.
    pub kind: Kind,
    /// Whose.
    pub subject: Subject,
    /// Its names.
    pub names: Vec<AlternativeName>,
}

/// What to ask for in place of a pair that is in use; nothing if it is the authority's already.
///
/// # Errors
/// If it is no certificate of this machine.
pub fn order(kind: Kind, node: &str, current: &str, authority: &CertificateFacts) -> Result<Option<Order>, String> {
    let link = kind.link();
    let facts = first_certificate(&link, &certificate_part(current)).map_err(|error| error.to_string())?;
    if facts.is_signed_by(authority) {
        return Ok(None);
    }
    let subject =
        Subject { common_name: format!("system:node:{node}"), organizations: vec!["system:nodes".to_owned()] };
    if facts.subject.as_ref() != Some(&subject) {
        return Err(format!("{link} is not a certificate of system:node:{node}"));
    }
    let names = match kind {
        Kind::Client => vec![],
        Kind::Server => facts.alternative_names.ok_or_else(|| format!("{link} has a name of an unknown kind"))?,
    };
    Ok(Some(Order { kind, subject, names }))
}

/// Whether what was issued is what was asked for.
///
/// # Errors
/// What it is instead.
pub fn check(order: &Order, issued: &str, key: &PrivateKey, authority: &CertificateFacts) -> Result<(), String> {
    let what = order.kind.name();
    let facts = first_certificate(what, issued).map_err(|error| error.to_string())?;
    if facts.subject_public_key_info != key.subject_public_key_info() {
        return Err(format!("the new certificate {what} is of another key"));
    }
    if facts.subject.as_ref() != Some(&order.subject) {
        return Err(format!("the new certificate {what} is somebody else's"));
    }
    let mut names = order.names.clone();
    names.sort();
    if order.kind == Kind::Server && facts.alternative_names.as_ref() != Some(&names) {
        return Err(format!("the new certificate {what} has other names than were asked for"));
    }
    if !facts.is_signed_by(authority) {
        return Err(format!("the cluster signs {what} with another authority still"));
    }
    Ok(())
}

/// The certificates of a file that holds a key too.
#[must_use]
pub fn certificate_part(pair: &str) -> String {
    let blocks = pem::parse_many(pair).unwrap_or_default();
    let certificates: Vec<_> = blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE").collect();
    pem::encode_many_config(&certificates, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

/// What an agent reports of a pair; nothing if there is none.
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
    use keyplane_core::pki::{Authority, CertificateOrder, ExtendedUsage};
    use keyplane_issuance::x509::{issue, mint_authority};

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn minted() -> Authority {
        mint_authority("kubernetes", KeyAlgorithm::EcdsaP256, now(), now() + Duration::from_hours(10)).unwrap()
    }

    fn subject(name: &str) -> Subject {
        Subject { common_name: name.to_owned(), organizations: vec!["system:nodes".to_owned()] }
    }

    fn leaf(authority: &Authority, name: &str, names: &[&str], key: &PrivateKey) -> String {
        let order = CertificateOrder {
            subject: subject(name),
            alternative_names: names.iter().map(|name| AlternativeName::parse(name)).collect(),
            extended_usages: vec![ExtendedUsage::ServerAuth],
            not_before: now(),
            not_after: now() + Duration::from_hours(1),
        };
        issue(&order, key, authority).unwrap()
    }

    fn key() -> PrivateKey {
        generate(KeyAlgorithm::EcdsaP256).unwrap()
    }

    fn sha256(authority: &Authority) -> String {
        authority.facts().fingerprint()
    }

    #[test]
    fn the_authority_is_found_in_the_bundle_by_its_fingerprint() {
        let (old, new) = (minted(), minted());
        let bundle = format!("{}{}", old.certificate_pem(), new.certificate_pem());
        assert_eq!(authority(&bundle, &sha256(&new)).unwrap(), *new.facts());
        assert!(authority(old.certificate_pem(), &sha256(&new)).unwrap_err().contains("not in the machine's ca.crt"));
    }

    #[test]
    fn asks_for_the_same_names_from_the_other_authority_and_only_then() {
        let (old, new, key) = (minted(), minted(), key());
        // As the kubelet's store has it: both in one file.
        let pair = format!("{}{}", leaf(&old, "system:node:w1", &["w1", "10.0.0.9"], &key), key.pem());
        assert_eq!(order(Kind::Server, "w1", &pair, old.facts()), Ok(None));
        let asked = order(Kind::Server, "w1", &pair, new.facts()).unwrap().unwrap();
        assert_eq!(asked.names, [AlternativeName::parse("w1"), AlternativeName::parse("10.0.0.9")]);
        assert_eq!(order(Kind::Client, "w1", &pair, new.facts()).unwrap().unwrap().names, []);
        assert!(
            order(Kind::Client, "w2", &pair, new.facts()).unwrap_err().contains("not a certificate of system:node:w2")
        );
        assert!(order(Kind::Client, "w1", "", new.facts()).is_err());
    }

    #[test]
    fn takes_only_what_was_asked_for() {
        let (old, new, key) = (minted(), minted(), key());
        let asked =
            Order { kind: Kind::Server, subject: subject("system:node:w1"), names: vec![AlternativeName::parse("w1")] };
        let judge = |issued: &str| check(&asked, issued, &key, new.facts());
        assert_eq!(judge(&leaf(&new, "system:node:w1", &["w1"], &key)), Ok(()));
        for (issued, words) in [
            (leaf(&old, "system:node:w1", &["w1"], &key), "another authority still"),
            (leaf(&new, "system:node:w1", &["w1"], &self::key()), "another key"),
            (leaf(&new, "system:node:w2", &["w1"], &key), "somebody else's"),
            (leaf(&new, "system:node:w1", &["w2"], &key), "other names"),
            (String::new(), "no certificate"),
        ] {
            let told = judge(&issued).unwrap_err();
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn a_pair_is_reported_without_its_key() {
        let (authority, key) = (minted(), key());
        let pair = format!("{}{}", leaf(&authority, "system:node:w1", &["w1"], &key), key.pem());
        let report = report(&pair).unwrap();
        assert_eq!(report.issuer, "kubernetes");
        assert_eq!(report.authority_key_id.as_deref().map(str::len), Some(40));
        assert!(!serde_json::to_string(&report).unwrap().contains("PRIVATE"));
        assert_eq!(self::report("nothing"), None);
    }

    #[test]
    fn a_pair_is_outdated_once_two_newer_ones_were_in_use() {
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
        assert_eq!(Kind::Client.outdated(&all, all[3]), [all[0]], "the newest one may be on its way into its place");
        assert_eq!(Kind::Client.outdated(&all, all[1]), [all[0], all[2]]);
        assert!(Kind::Client.outdated(&all, all[2]).is_empty() && Kind::Client.outdated(&all, all[0]).is_empty());
        assert!(Kind::Server.outdated(&all, all[7]).is_empty());
        // A link to something else: nobody knows what is old.
        assert!(Kind::Client.outdated(&all, "mine.pem").is_empty());
    }

    #[test]
    fn pairs_are_named_as_the_kubelet_names_them() {
        assert_eq!(Kind::Client.file(now()), "/var/lib/kubelet/pki/kubelet-client-2026-11-23-12-00-00.pem");
        assert_eq!(Kind::Server.link(), "/var/lib/kubelet/pki/kubelet-server-current.pem");
    }
}
