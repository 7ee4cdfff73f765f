//! Authorities made with openssl, as a company would.

use std::path::Path;
use std::process::Command;

use keyplane_crds::KeyAlgorithm;
use tempfile::TempDir;

use super::super::{CertificateOrder, Subject, first_certificate};
use super::*;
use crate::x509::generate;
use crate::x509::{cross_sign, issue, mint_authority, renew_authority};

const BOTH: &[ExtendedUsage] = &[ExtendedUsage::ServerAuth, ExtendedUsage::ClientAuth];
const CA: &str =
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";
/// Two organizational units and two domain components: of each kind rcgen would keep one.
const CORP: &str = "/DC=example/DC=corp/O=Corp/OU=IT/OU=PKI/CN=Corp Issuing CA";

fn openssl(directory: &Path, arguments: &str) -> Result<String, String> {
    let arguments = arguments.split(' ').map(|word| word.replace('~', " "));
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// A root and an intermediate authority below it with these extensions.
struct Corp(TempDir);

impl Corp {
    fn new(extensions: &str, days: &str) -> Self {
        Self::with_key("-newkey ec -pkeyopt ec_paramgen_curve:P-256", extensions, days)
    }

    fn with_key(key: &str, extensions: &str, days: &str) -> Self {
        let corp = Self(TempDir::new().unwrap());
        corp.write("ca.ext", extensions);
        corp.run(&format!("req -x509 {key} -nodes -keyout root.key -out root.crt -days 3000 -subj /CN=Corp~Root -addext keyUsage=critical,keyCertSign"));
        corp.run(&format!("req -new {key} -nodes -keyout ca.key -out ca.csr -subj {}", CORP.replace(' ', "~")));
        corp.sign(days);
        corp
    }

    fn sign(&self, days: &str) {
        self.run(&format!("x509 -req -in ca.csr -CA root.crt -CAkey root.key -out ca.crt -extfile ca.ext {days}"));
    }

    fn run(&self, arguments: &str) -> String {
        openssl(self.0.path(), arguments).unwrap()
    }

    fn write(&self, file: &str, content: &str) {
        std::fs::write(self.0.path().join(file), content).unwrap();
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.0.path().join(file)).unwrap()
    }

    fn take(&self) -> Result<Authority, Unfit> {
        let (certificate, key, root) = (self.read("ca.crt"), self.read("ca.key"), self.read("root.crt"));
        given_authority("corp", (&certificate, Some(&key), Some(&root)), BOTH, Timestamp::now())
    }

    /// Whether openssl takes it for a server's, with these authorities and those in between.
    fn verifies(&self, options: &str, trust: &str, between: &str, certificate: &str) -> Result<String, String> {
        self.write("trust", trust);
        self.write("between", between);
        self.write("leaf", certificate);
        let between = if between.is_empty() { "" } else { "-untrusted between " };
        let line = format!("verify -x509_strict -purpose sslserver {options}-CAfile trust {between}leaf");
        openssl(self.0.path(), &line)
    }
}

fn leaf_of(authority: &Authority) -> String {
    let now = Timestamp::now();
    let order = CertificateOrder {
        subject: Subject { common_name: "a".to_owned(), organizations: vec!["b".to_owned(), "c".to_owned()] },
        alternative_names: vec![super::super::AlternativeName::parse("api.example")],
        extended_usages: vec![ExtendedUsage::ServerAuth],
        not_before: now,
        not_after: now + SignedDuration::from_hours(24 * 9999),
    };
    issue(&order, &generate(KeyAlgorithm::EcdsaP256).unwrap(), authority).unwrap()
}

#[test]
fn what_an_intermediate_authority_signs_is_good_for_who_trusts_the_root_and_gets_the_chain() {
    for key in ["-newkey ec -pkeyopt ec_paramgen_curve:P-384", "-newkey rsa:2048"] {
        let corp = Corp::with_key(key, CA, "-days 300");
        let authority = corp.take().unwrap();
        assert_eq!((authority.above(), authority.root().unwrap()), ("", corp.read("root.crt").as_str()));
        assert_eq!(authority.certificate_pem(), corp.read("ca.crt"), "the root is not among what is trusted");
        let leaf = leaf_of(&authority);
        assert_eq!(first_certificate("leaf", &leaf).unwrap().not_after, authority.facts().not_after);
        let root = corp.read("root.crt");
        corp.verifies("", &root, &authority.chain(), &leaf).unwrap();
        assert!(corp.verifies("", &root, "", &leaf).is_err(), "without the chain the root does not help");
        // Who has the intermediate one alone has to be told that this is enough.
        corp.verifies("-partial_chain ", authority.certificate_pem(), "", &leaf).unwrap();
        assert!(corp.verifies("", authority.certificate_pem(), "", &leaf).is_err());
    }
}

#[test]
fn a_chain_may_have_the_root_or_end_before_it() {
    let corp = Corp::new(CA, "-days 300");
    // Another one below it, which is the cluster's.
    corp.run("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout sub.key -out sub.csr -subj /CN=Sub");
    corp.run("x509 -req -in sub.csr -CA ca.crt -CAkey ca.key -out sub.crt -extfile ca.ext -days 200");
    let (sub, ca, root, key) = (corp.read("sub.crt"), corp.read("ca.crt"), corp.read("root.crt"), corp.read("sub.key"));
    let take = |certificates: &str, root: Option<&str>| {
        given_authority("corp", (certificates, Some(&key), root), BOTH, Timestamp::now())
    };
    for (certificates, given_root, above, has_root) in [
        (sub.clone(), None, "", false),
        (format!("{sub}{ca}"), None, ca.as_str(), false),
        (format!("{sub}{ca}"), Some(&root), &ca, true),
        (format!("{sub}{ca}{root}"), None, &ca, true),
        (format!("{sub}{ca}{root}"), Some(&root), &ca, true),
        // As some tools have it: the one that has signed it.
        (sub.clone(), Some(&ca), &ca, false),
        // Windows' line ends, and words between.
        (format!("Bag\n{sub}more\n{ca}").replace('\n', "\r\n"), Some(&root), &ca, true),
    ] {
        let authority = take(&certificates, given_root.map(String::as_str)).unwrap();
        assert_eq!((authority.above(), authority.root()), (above, has_root.then_some(root.as_str())));
        let leaf = leaf_of(&authority);
        assert_eq!(corp.verifies("", &root, &authority.chain(), &leaf).is_ok(), above == ca);
    }
    let order = take(&format!("{sub}{root}"), None).unwrap_err();
    assert!(matches!(order, Unfit::Order { .. }), "{order}");
    assert_eq!(take(&format!("{ca}{sub}"), None).unwrap_err(), Unfit::KeyMismatch);
    assert!(matches!(take(&sub, Some(&root)).unwrap_err(), Unfit::Root(_)));
    assert_eq!(take(&sub, Some("none")).unwrap_err(), Unfit::NoCertificate("ca.crt"));
}

#[test]
fn a_self_signed_one_is_a_root_and_brings_no_chain() {
    let corp = Corp::new(CA, "-days 300");
    let (certificate, key) = (corp.read("root.crt"), corp.read("root.key"));
    for root in [None, Some(certificate.as_str())] {
        let authority = given_authority("corp", (&certificate, Some(&key), root), BOTH, Timestamp::now()).unwrap();
        assert_eq!((authority.above(), authority.root(), authority.chain().as_str()), ("", None, ""));
    }
}

#[test]
fn refuses_what_would_leave_the_cluster_without_good_certificates() {
    let refusal = |extensions: &str, days: &str| Corp::new(extensions, days).take().unwrap_err();
    let with = |more: &str| format!("{CA}{more}\n");
    let good = "-days 300";
    assert!(matches!(refusal("basicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\n", good), Unfit::NoAuthority(_)));
    assert!(matches!(refusal(&CA.replace("keyCertSign,", ""), good), Unfit::NoAuthority(_)));
    assert!(matches!(refusal(&CA.replace("=hash", "=none"), good), Unfit::NoKeyIdentifier(_)));
    assert!(matches!(refusal(&with("extendedKeyUsage=serverAuth"), good), Unfit::Usages(_)));
    assert!(matches!(
        refusal(&with("nameConstraints=critical,permitted;DNS:example"), good),
        Unfit::NameConstraints(_)
    ));
    let corp = Corp::new(CA, good);
    let (certificate, key) = (corp.read("ca.crt"), corp.read("ca.key"));
    let at = |now| given_authority("corp", (&certificate, Some(&key), None), BOTH, now).unwrap_err();
    let (now, year) = (Timestamp::now(), SignedDuration::from_hours(24 * 365));
    assert!(matches!(at(now - year), Unfit::NotYet { .. }));
    assert!(matches!(at(now + year), Unfit::Ended { .. }));
    for usable in ["extendedKeyUsage=serverAuth,clientAuth,codeSigning", "extendedKeyUsage=anyExtendedKeyUsage"] {
        Corp::new(&with(usable), good).take().unwrap();
    }
    Corp::new(&CA.replace("CA:TRUE", "CA:TRUE,pathlen:0"), good).take().unwrap();
}

#[test]
fn refuses_one_above_it_that_does_not_allow_it() {
    let corp = Corp::new(CA, "-days 300");
    corp.write("root.ext", &CA.replace("CA:TRUE", "CA:TRUE,pathlen:0"));
    corp.run("x509 -in root.crt -signkey root.key -out root.crt -extfile root.ext -days 3000");
    corp.sign("-days 300");
    let refused = corp.take().unwrap_err();
    assert!(matches!(refused, Unfit::PathLength { length: 0, below: 1, .. }), "{refused}");
}

#[test]
fn reads_the_keys_that_openssl_writes_and_tells_of_those_that_it_can_not_use() {
    let corp = Corp::new(CA, "-days 300");
    // SEC1, with the curve's parameters before it.
    let sec1 = corp.run("ec -in ca.key -param_enc named_curve");
    corp.write("plain.key", &corp.read("ca.key"));
    let parameters = corp.run("ecparam -name prime256v1");
    corp.write("ca.key", &(parameters + &sec1));
    corp.take().unwrap();
    corp.run("pkey -in plain.key -aes256 -passout pass:geheim -out ca.key");
    assert_eq!(corp.take().unwrap_err(), Unfit::EncryptedKey);
    corp.write("ca.key", "none");
    assert_eq!(corp.take().unwrap_err(), Unfit::Key);
    corp.write("ca.key", &corp.read("root.key"));
    assert_eq!(corp.take().unwrap_err(), Unfit::KeyMismatch);
    for key in ["-newkey ec -pkeyopt ec_paramgen_curve:P-521", "-newkey ed25519"] {
        assert_eq!(Corp::with_key(key, CA, "-days 300").take().unwrap_err(), Unfit::Key, "{key}");
    }
    let refused = Corp::with_key("-newkey rsa:1024", CA, "-days 300").take().unwrap_err();
    assert_eq!(refused, Unfit::Key);
}

#[test]
fn the_cross_certificate_leads_from_the_former_authority_to_one_with_a_long_name() {
    let corp = Corp::new(CA, "-days 300");
    let (given, now) = (corp.take().unwrap(), Timestamp::now());
    let end = now + SignedDuration::from_hours(24 * 900);
    let former = mint_authority("kubernetes", KeyAlgorithm::Rsa2048, now, end).unwrap();
    for (old, new, trust) in
        [(&former, &given, former.certificate_pem().to_owned()), (&given, &former, corp.read("root.crt"))]
    {
        let cross = cross_sign(new, old, now).unwrap().unwrap();
        let leaf = leaf_of(new);
        corp.verifies("", &trust, &format!("{cross}{}", old.chain()), &leaf).unwrap();
        assert!(corp.verifies("", &trust, &old.chain(), &leaf).is_err());
    }
}

#[test]
fn with_a_renewed_certificate_of_the_same_key_old_and_new_leaves_are_good_with_old_and_new() {
    let corp = Corp::new(CA, "-days 300");
    let now = Timestamp::now();
    let root = (corp.read("root.crt"), corp.read("root.key"));
    let mint = |algorithm| mint_authority("kubernetes", algorithm, now, now + SignedDuration::from_hours(24)).unwrap();
    for old in [
        mint(KeyAlgorithm::Rsa2048),
        mint(KeyAlgorithm::EcdsaP384),
        given_authority("corp", (&root.0, Some(&root.1), None), BOTH, now).unwrap(),
    ] {
        let end = now + SignedDuration::from_hours(24 * 3650);
        let new = renew_authority(&old, now, end).unwrap();
        assert_eq!(new.facts().not_after.as_second(), end.as_second());
        assert_ne!(new.facts().serial, old.facts().serial);
        let same = |facts: &CertificateFacts| CertificateFacts {
            der: vec![],
            serial: String::new(),
            not_before: now,
            not_after: now,
            ..facts.clone()
        };
        assert_eq!(same(new.facts()), same(old.facts()));
        for leaf in [leaf_of(&old), leaf_of(&new)] {
            for trust in [&old, &new] {
                corp.verifies("", trust.certificate_pem(), "", &leaf).unwrap();
            }
        }
    }
    assert!(renew_authority(&corp.take().unwrap(), now, now).is_err(), "only who has signed it can renew it");
}
