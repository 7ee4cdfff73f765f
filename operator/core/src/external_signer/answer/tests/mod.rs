//! openssl signs the requested certificate, and then one with a difference in each field.

use std::io::Write;
use std::process::Command;

use keyplane_crds::KeyAlgorithm;
use tempfile::NamedTempFile;

use super::super::request::{EXTENSIONS_KEY, data};
use super::*;
use crate::pki::{CaName, CertificateAuthority, PrivateKey};
use crate::x509::{generate, generate_ca, request};

const DAY: i64 = 86_400;

fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap()
}

fn after(days: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() + days * DAY).unwrap()
}

fn ca(name: &str) -> CertificateAuthority {
    generate_ca(name, KeyAlgorithm::EcdsaP256, after(-1), after(4_000)).unwrap()
}

/// A request for an API server certificate that is valid for one year.
struct Request {
    ca: CertificateAuthority,
    key: PrivateKey,
    subject: Subject,
    names: Vec<AlternativeName>,
}

impl Request {
    fn new() -> Self {
        let names = ["cp1", "kubernetes.default.svc", "10.0.0.11", "fd00::11"].map(AlternativeName::parse).to_vec();
        let organizations = vec!["auditors".to_owned(), "ops@example".to_owned()];
        Self {
            ca: ca("corp"),
            key: generate(KeyAlgorithm::EcdsaP256).unwrap(),
            subject: Subject { common_name: "kube-apiserver".to_owned(), organizations },
            names,
        }
    }

    fn with<T>(&self, use_it: impl FnOnce(&ExpectedCertificate<'_>) -> T) -> T {
        use_it(&ExpectedCertificate {
            subject: &self.subject,
            alternative_names: &self.names,
            extended_usages: &[ExtendedUsage::ServerAuth],
            validity: Duration::from_hours(24 * 365),
            subject_public_key_info: &self.key.subject_public_key_info(),
        })
    }

    /// The extension file that the ConfigMap has for openssl.
    fn extensions(&self) -> String {
        self.with(|expected| data("", CaName::Cluster, "", expected)[EXTENSIONS_KEY].clone())
    }

    fn text(&self) -> String {
        request(&self.subject, &self.names, &self.key).unwrap()
    }

    fn check(&self, answer: &str) -> Result<String, Rejection> {
        self.with(|expected| check(answer, expected, self.ca.facts(), now()))
    }

    fn signed(&self, extensions: &str, more: &[&str]) -> String {
        sign(&self.text(), &self.ca, extensions, more)
    }
}

fn sign(request: &str, ca: &CertificateAuthority, extensions: &str, more: &[&str]) -> String {
    let (request, extensions) = (file(request), file(extensions));
    let (certificate, key) = (file(ca.certificate_pem()), file(ca.key().unwrap().pem()));
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-req"]).arg("-in").arg(request.path()).arg("-CA").arg(certificate.path());
    openssl.arg("-CAkey").arg(key.path()).arg("-extfile").arg(extensions.path());
    let days: &[&str] = if more.contains(&"-days") { &[] } else { &["-days", "365"] };
    let output = openssl.args(days).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn accepts_certificate_that_openssl_signs_with_published_file() {
    let request = Request::new();
    let answer = request.signed(&request.extensions(), &[]);
    assert_eq!(request.check(&answer).unwrap(), answer);
    // With other text before the certificate, and the chain after it.
    let with_text = request.signed(&request.extensions(), &["-text"]);
    let chain = format!("Bag Attributes\r\n{}{}", with_text.replace('\n', "\r\n"), request.ca.certificate_pem());
    assert!(first_certificate("x", &with_text).is_ok());
    assert!(request.check(&chain).unwrap().starts_with("-----BEGIN CERTIFICATE-----\nMII"));
}

#[test]
fn accepts_missing_key_encipherment_and_reordered_names() {
    let request = Request::new();
    let extensions = request.extensions().replace(", keyEncipherment", "");
    let reordered = extensions.replace("DNS:cp1, ", "").replace("IP:fd00::11", "IP:fd00::11, DNS:cp1");
    assert_ne!(extensions, reordered);
    request.check(&request.signed(&reordered, &[])).unwrap();
}

#[test]
fn rejection_names_the_extension_that_differs() {
    let request = Request::new();
    let good = request.extensions();
    let refused = |from: &str, to: &str| {
        assert!(good.contains(from), "{good}");
        request.check(&request.signed(&good.replace(from, to), &[])).unwrap_err().to_string()
    };
    for (from, to, expected) in [
        ("DNS:cp1, ", "", "subject alternative names: missing: cp1"),
        ("DNS:cp1, ", "DNS:cp1, DNS:cp2, ", "subject alternative names: not requested: cp2"),
        ("DNS:cp1, ", "DNS:cp1, email:a@example, ", "subject alternative names: found names that are neither"),
        ("IP:10.0.0.11", "IP:10.0.0.12", "subject alternative names: missing: 10.0.0.11; not requested: 10.0.0.12"),
        (
            "serverAuth",
            "serverAuth, clientAuth",
            "extended key usage: found server auth, client auth, requested server auth;",
        ),
        ("serverAuth", "clientAuth", "extended key usage: found client auth"),
        ("serverAuth", "serverAuth, codeSigning", "extended key usage: found usages other than"),
        (
            "extendedKeyUsage = serverAuth\n",
            "",
            "extended key usage: found no such extension, which allows every usage",
        ),
        (
            "keyEncipherment",
            "keyEncipherment, keyCertSign",
            "key usage: found digital signature, key encipherment, cert",
        ),
        ("digitalSignature, ", "", "key usage: found key encipherment, requested"),
        ("keyUsage = critical, digitalSignature, keyEncipherment\n", "", "key usage: found no such extension"),
        ("CA:FALSE", "CA:TRUE", "basic constraints: found CA:TRUE"),
        (
            "authorityKey",
            "1.2.3.4 = critical, ASN1:UTF8String:x\nauthorityKey",
            "extensions: critical extension 1.2.3.4",
        ),
    ] {
        let message = refused(from, to);
        assert!(message.starts_with(expected), "{from} -> {to}: {message}");
    }
    // An unknown extension that is not critical is accepted.
    request.check(&request.signed(&format!("{good}1.2.3.4 = ASN1:UTF8String:x\n"), &[])).unwrap();
}

#[test]
fn rejects_another_key_issuer_subject_and_signature() {
    let request = Request::new();
    let extensions = request.extensions();
    let other = generate(KeyAlgorithm::EcdsaP256).unwrap();
    let of_other_key =
        sign(&crate::x509::request(&request.subject, &request.names, &other).unwrap(), &request.ca, &extensions, &[]);
    assert_eq!(request.check(&of_other_key), Err(Rejection::OtherKey));
    // A CA with the same name and another key is another CA.
    let of_other_issuer = sign(&request.text(), &ca("corp"), &extensions, &[]);
    let expected = Rejection::OtherIssuer { issuer: "corp".to_owned(), ca: "corp".to_owned() };
    assert_eq!(request.check(&of_other_issuer), Err(expected));
    assert_eq!(request.check(&request.signed(&extensions, &["-sha1"])), Err(Rejection::WeakSignature));
    for subject in ["/CN=kube-apiserver", "/O=auditors/O=ops@example/O=system:masters/CN=kube-apiserver"] {
        let message = request.check(&request.signed(&extensions, &["-subj", subject])).unwrap_err().to_string();
        assert!(
            message.starts_with("subject: found") && message.contains("O=ops@example, CN=kube-apiserver"),
            "{message}"
        );
    }
    let more = "/C=DE/O=auditors/O=ops@example/CN=kube-apiserver";
    let message = request.check(&request.signed(&extensions, &["-subj", more])).unwrap_err().to_string();
    assert!(message.contains("with other attributes (2.5.4.6)"), "{message}");
    // The order of groups has no meaning.
    request.check(&request.signed(&extensions, &["-subj", "/O=ops@example/O=auditors/CN=kube-apiserver"])).unwrap();
    assert_eq!(request.check("no certificate"), Err(Rejection::Unreadable));
    assert_eq!(request.check(&request.text()), Err(Rejection::Unreadable));
}

#[test]
fn rejects_too_long_too_short_and_future_validity() {
    let request = Request::new();
    let answer = |days| request.signed(&request.extensions(), &["-days", days]);
    assert!(matches!(request.check(&answer("366")), Err(Rejection::TooLong { .. })));
    assert!(matches!(request.check(&answer("91")), Err(Rejection::TooShort(_))));
    let good = answer("92");
    request.check(&good).unwrap();
    let at = |now| request.with(|expected| check(&good, expected, request.ca.facts(), now));
    assert!(matches!(at(after(-1)), Err(Rejection::NotYetValid(_))));
    assert!(matches!(at(after(92)), Err(Rejection::TooShort(_))));
}

#[test]
fn validity_is_limited_by_the_expiry_of_the_ca() {
    let request =
        Request { ca: generate_ca("corp", KeyAlgorithm::EcdsaP256, after(-1), after(10)).unwrap(), ..Request::new() };
    let answer = |days| request.check(&request.signed(&request.extensions(), &["-days", days]));
    assert!(matches!(answer("11"), Err(Rejection::TooLong { .. })));
    assert!(matches!(answer("2"), Err(Rejection::TooShort(_))));
    answer("9").unwrap();
}
