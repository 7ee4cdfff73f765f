//! CAs that openssl issues, like the CAs of a company.

use std::path::Path;
use std::process::Command;

use keyplane_crds::KeyAlgorithm;
use tempfile::TempDir;

use super::super::{CertificateTemplate, Subject, first_certificate};
use super::*;
use crate::x509::{cross_sign, generate, generate_ca, issue, renew_ca};

const BOTH: &[ExtendedUsage] = &[ExtendedUsage::ServerAuth, ExtendedUsage::ClientAuth];
const CA: &str =
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";
/// Two organizational units and two domain components. rcgen would keep only one of each.
const CORP: &str = "/DC=example/DC=corp/O=Corp/OU=IT/OU=PKI/CN=Corp Issuing CA";

fn openssl(directory: &Path, arguments: &str) -> Result<String, String> {
    let arguments = arguments.split(' ').map(|word| word.replace('~', " "));
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// A root CA and an intermediate CA with the given extensions.
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

    fn take(&self) -> Result<CertificateAuthority, UserProvidedCaError> {
        let (certificate, key, root) = (self.read("ca.crt"), self.read("ca.key"), self.read("root.crt"));
        user_provided_ca("corp", (&certificate, Some(&key), Some(&root)), BOTH, Timestamp::now())
    }

    /// Returns whether openssl verifies a server certificate with these trusted and untrusted CAs.
    fn verifies(&self, options: &str, trust: &str, between: &str, certificate: &str) -> Result<String, String> {
        self.write("trust", trust);
        self.write("between", between);
        self.write("leaf", certificate);
        let between = if between.is_empty() { "" } else { "-untrusted between " };
        let line = format!("verify -x509_strict -purpose sslserver {options}-CAfile trust {between}leaf");
        openssl(self.0.path(), &line)
    }
}

fn leaf_of(ca: &CertificateAuthority) -> String {
    let now = Timestamp::now();
    let template = CertificateTemplate {
        subject: Subject { common_name: "a".to_owned(), organizations: vec!["b".to_owned(), "c".to_owned()] },
        alternative_names: vec![super::super::AlternativeName::parse("api.example")],
        extended_usages: vec![ExtendedUsage::ServerAuth],
        not_before: now,
        not_after: now + SignedDuration::from_hours(24 * 9999),
    };
    issue(&template, &generate(KeyAlgorithm::EcdsaP256).unwrap(), ca).unwrap()
}

#[test]
fn leaf_of_intermediate_ca_verifies_with_root_and_chain() {
    for key in ["-newkey ec -pkeyopt ec_paramgen_curve:P-384", "-newkey rsa:2048"] {
        let corp = Corp::with_key(key, CA, "-days 300");
        let ca = corp.take().unwrap();
        assert_eq!((ca.intermediates(), ca.root().unwrap()), ("", corp.read("root.crt").as_str()));
        assert_eq!(ca.certificate_pem(), corp.read("ca.crt"), "the root is not part of the trust bundle");
        let leaf = leaf_of(&ca);
        assert_eq!(first_certificate("leaf", &leaf).unwrap().not_after, ca.facts().not_after);
        let root = corp.read("root.crt");
        corp.verifies("", &root, &ca.chain(), &leaf).unwrap();
        assert!(corp.verifies("", &root, "", &leaf).is_err(), "without the chain the root does not verify");
        // A client with only the intermediate CA needs the option for partial chains.
        corp.verifies("-partial_chain ", ca.certificate_pem(), "", &leaf).unwrap();
        assert!(corp.verifies("", ca.certificate_pem(), "", &leaf).is_err());
    }
}

#[test]
fn accepts_chain_with_and_without_root() {
    let corp = Corp::new(CA, "-days 300");
    // A second intermediate CA, used as the CA of the cluster.
    corp.run("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout sub.key -out sub.csr -subj /CN=Sub");
    corp.run("x509 -req -in sub.csr -CA ca.crt -CAkey ca.key -out sub.crt -extfile ca.ext -days 200");
    let (sub, ca, root, key) = (corp.read("sub.crt"), corp.read("ca.crt"), corp.read("root.crt"), corp.read("sub.key"));
    let take = |certificates: &str, root: Option<&str>| {
        user_provided_ca("corp", (certificates, Some(&key), root), BOTH, Timestamp::now())
    };
    for (certificates, given_root, above, has_root) in [
        (sub.clone(), None, "", false),
        (format!("{sub}{ca}"), None, ca.as_str(), false),
        (format!("{sub}{ca}"), Some(&root), &ca, true),
        (format!("{sub}{ca}{root}"), None, &ca, true),
        (format!("{sub}{ca}{root}"), Some(&root), &ca, true),
        // Some tools write the issuer into ca.crt.
        (sub.clone(), Some(&ca), &ca, false),
        // Windows line endings, and text between the certificates.
        (format!("Bag\n{sub}more\n{ca}").replace('\n', "\r\n"), Some(&root), &ca, true),
    ] {
        let loaded = take(&certificates, given_root.map(String::as_str)).unwrap();
        assert_eq!((loaded.intermediates(), loaded.root()), (above, has_root.then_some(root.as_str())));
        let leaf = leaf_of(&loaded);
        assert_eq!(corp.verifies("", &root, &loaded.chain(), &leaf).is_ok(), above == ca);
    }
    let order = take(&format!("{sub}{root}"), None).unwrap_err();
    assert!(matches!(order, UserProvidedCaError::Order { .. }), "{order}");
    assert_eq!(take(&format!("{ca}{sub}"), None).unwrap_err(), UserProvidedCaError::KeyMismatch);
    assert!(matches!(take(&sub, Some(&root)).unwrap_err(), UserProvidedCaError::Root(_)));
    assert_eq!(take(&sub, Some("none")).unwrap_err(), UserProvidedCaError::NoCertificate("ca.crt"));
}

#[test]
fn self_signed_ca_has_no_chain() {
    let corp = Corp::new(CA, "-days 300");
    let (certificate, key) = (corp.read("root.crt"), corp.read("root.key"));
    for root in [None, Some(certificate.as_str())] {
        let ca = user_provided_ca("corp", (&certificate, Some(&key), root), BOTH, Timestamp::now()).unwrap();
        assert_eq!((ca.intermediates(), ca.root(), ca.chain().as_str()), ("", None, ""));
    }
}

#[test]
fn rejects_ca_that_cannot_sign_valid_cluster_certificates() {
    let refusal = |extensions: &str, days: &str| Corp::new(extensions, days).take().unwrap_err();
    let with = |more: &str| format!("{CA}{more}\n");
    let good = "-days 300";
    assert!(matches!(
        refusal("basicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\n", good),
        UserProvidedCaError::NotACa(_)
    ));
    assert!(matches!(refusal(&CA.replace("keyCertSign,", ""), good), UserProvidedCaError::NotACa(_)));
    assert!(matches!(refusal(&CA.replace("=hash", "=none"), good), UserProvidedCaError::NoKeyIdentifier(_)));
    assert!(matches!(refusal(&with("extendedKeyUsage=serverAuth"), good), UserProvidedCaError::Usages(_)));
    assert!(matches!(
        refusal(&with("nameConstraints=critical,permitted;DNS:example"), good),
        UserProvidedCaError::NameConstraints(_)
    ));
    let corp = Corp::new(CA, good);
    let (certificate, key) = (corp.read("ca.crt"), corp.read("ca.key"));
    let at = |now| user_provided_ca("corp", (&certificate, Some(&key), None), BOTH, now).unwrap_err();
    let (now, year) = (Timestamp::now(), SignedDuration::from_hours(24 * 365));
    assert!(matches!(at(now - year), UserProvidedCaError::NotYet { .. }));
    assert!(matches!(at(now + year), UserProvidedCaError::Ended { .. }));
    for usable in ["extendedKeyUsage=serverAuth,clientAuth,codeSigning", "extendedKeyUsage=anyExtendedKeyUsage"] {
        Corp::new(&with(usable), good).take().unwrap();
    }
    Corp::new(&CA.replace("CA:TRUE", "CA:TRUE,pathlen:0"), good).take().unwrap();
}

#[test]
fn rejects_issuer_with_too_small_path_length() {
    let corp = Corp::new(CA, "-days 300");
    corp.write("root.ext", &CA.replace("CA:TRUE", "CA:TRUE,pathlen:0"));
    corp.run("x509 -in root.crt -signkey root.key -out root.crt -extfile root.ext -days 3000");
    corp.sign("-days 300");
    let error = corp.take().unwrap_err();
    assert!(matches!(error, UserProvidedCaError::PathLength { length: 0, below: 1, .. }), "{error}");
}

#[test]
fn reads_openssl_keys_and_rejects_unsupported_ones() {
    let corp = Corp::new(CA, "-days 300");
    // SEC 1, with the curve parameters before the key.
    let sec1 = corp.run("ec -in ca.key -param_enc named_curve");
    corp.write("plain.key", &corp.read("ca.key"));
    let parameters = corp.run("ecparam -name prime256v1");
    corp.write("ca.key", &(parameters + &sec1));
    corp.take().unwrap();
    corp.run("pkey -in plain.key -aes256 -passout pass:geheim -out ca.key");
    assert_eq!(corp.take().unwrap_err(), UserProvidedCaError::EncryptedKey);
    corp.write("ca.key", "none");
    assert_eq!(corp.take().unwrap_err(), UserProvidedCaError::Key);
    corp.write("ca.key", &corp.read("root.key"));
    assert_eq!(corp.take().unwrap_err(), UserProvidedCaError::KeyMismatch);
    for key in ["-newkey ec -pkeyopt ec_paramgen_curve:P-521", "-newkey ed25519"] {
        assert_eq!(Corp::with_key(key, CA, "-days 300").take().unwrap_err(), UserProvidedCaError::Key, "{key}");
    }
    let error = Corp::with_key("-newkey rsa:1024", CA, "-days 300").take().unwrap_err();
    assert_eq!(error, UserProvidedCaError::Key);
}

#[test]
fn cross_signed_ca_keeps_long_subject_name() {
    let corp = Corp::new(CA, "-days 300");
    let (given, now) = (corp.take().unwrap(), Timestamp::now());
    let end = now + SignedDuration::from_hours(24 * 900);
    let former = generate_ca("kubernetes", KeyAlgorithm::Rsa2048, now, end).unwrap();
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
fn leaves_verify_with_ca_before_and_after_renewal() {
    let corp = Corp::new(CA, "-days 300");
    let now = Timestamp::now();
    let root = (corp.read("root.crt"), corp.read("root.key"));
    let new_ca = |algorithm| generate_ca("kubernetes", algorithm, now, now + SignedDuration::from_hours(24)).unwrap();
    for old in [
        new_ca(KeyAlgorithm::Rsa2048),
        new_ca(KeyAlgorithm::EcdsaP384),
        user_provided_ca("corp", (&root.0, Some(&root.1), None), BOTH, now).unwrap(),
    ] {
        let end = now + SignedDuration::from_hours(24 * 3650);
        let new = renew_ca(&old, now, end).unwrap();
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
    assert!(renew_ca(&corp.take().unwrap(), now, now).is_err(), "only its issuer can renew it");
}
