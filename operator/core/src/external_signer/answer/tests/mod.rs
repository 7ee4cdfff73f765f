//! openssl signs what was asked for, and then something else in each field.

use std::io::Write;
use std::process::Command;

use keyplane_crds::KeyAlgorithm;
use tempfile::NamedTempFile;

use super::super::request::{EXTENSIONS_KEY, data};
use super::*;
use crate::pki::AuthorityName;
use crate::pki::{Authority, PrivateKey};
use crate::x509::generate;
use crate::x509::{mint_authority, request};

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

fn authority(name: &str) -> Authority {
    mint_authority(name, KeyAlgorithm::EcdsaP256, after(-1), after(4_000)).unwrap()
}

/// Asks for an API server's certificate of a year.
struct Request {
    authority: Authority,
    key: PrivateKey,
    subject: Subject,
    names: Vec<AlternativeName>,
}

impl Request {
    fn new() -> Self {
        let names = ["cp1", "kubernetes.default.svc", "10.0.0.11", "fd00::11"].map(AlternativeName::parse).to_vec();
        let organizations = vec!["auditors".to_owned(), "ops@example".to_owned()];
        Self {
            authority: authority("corp"),
            key: generate(KeyAlgorithm::EcdsaP256).unwrap(),
            subject: Subject { common_name: "kube-apiserver".to_owned(), organizations },
            names,
        }
    }

    fn with<T>(&self, use_it: impl FnOnce(&Asked<'_>) -> T) -> T {
        use_it(&Asked {
            subject: &self.subject,
            alternative_names: &self.names,
            extended_usages: &[ExtendedUsage::ServerAuth],
            validity: Duration::from_hours(24 * 365),
            subject_public_key_info: &self.key.subject_public_key_info(),
        })
    }

    /// What the ConfigMap gives to a person with openssl.
    fn extensions(&self) -> String {
        self.with(|asked| data("", AuthorityName::Cluster, "", asked)[EXTENSIONS_KEY].clone())
    }

    fn text(&self) -> String {
        request(&self.subject, &self.names, &self.key).unwrap()
    }

    fn check(&self, answer: &str) -> Result<String, Refusal> {
        self.with(|asked| check(answer, asked, self.authority.facts(), now()))
    }

    fn signed(&self, extensions: &str, more: &[&str]) -> String {
        sign(&self.text(), &self.authority, extensions, more)
    }
}

fn sign(request: &str, authority: &Authority, extensions: &str, more: &[&str]) -> String {
    let (request, extensions) = (file(request), file(extensions));
    let (certificate, key) = (file(authority.certificate_pem()), file(authority.key().unwrap().pem()));
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-req"]).arg("-in").arg(request.path()).arg("-CA").arg(certificate.path());
    openssl.arg("-CAkey").arg(key.path()).arg("-extfile").arg(extensions.path());
    let days: &[&str] = if more.contains(&"-days") { &[] } else { &["-days", "365"] };
    let output = openssl.args(days).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn takes_what_openssl_signs_with_the_extensions_that_are_published() {
    let request = Request::new();
    let answer = request.signed(&request.extensions(), &[]);
    assert_eq!(request.check(&answer).unwrap(), answer);
    // With other text around it, and the chain below it.
    let told = request.signed(&request.extensions(), &["-text"]);
    let chain = format!("Bag Attributes\r\n{}{}", told.replace('\n', "\r\n"), request.authority.certificate_pem());
    assert!(first_certificate("x", &told).is_ok());
    assert!(request.check(&chain).unwrap().starts_with("-----BEGIN CERTIFICATE-----\nMII"));
}

#[test]
fn takes_a_key_usage_without_encipherment_and_names_in_another_order() {
    let request = Request::new();
    let extensions = request.extensions().replace(", keyEncipherment", "");
    let reordered = extensions.replace("DNS:cp1, ", "").replace("IP:fd00::11", "IP:fd00::11, DNS:cp1");
    assert_ne!(extensions, reordered);
    request.check(&request.signed(&reordered, &[])).unwrap();
}

#[test]
fn names_the_extension_that_differs_from_what_was_asked_for() {
    let request = Request::new();
    let good = request.extensions();
    let refused = |from: &str, to: &str| {
        assert!(good.contains(from), "{good}");
        request.check(&request.signed(&good.replace(from, to), &[])).unwrap_err().to_string()
    };
    for (from, to, expected) in [
        ("DNS:cp1, ", "", "subject alternative names: missing: cp1"),
        ("DNS:cp1, ", "DNS:cp1, DNS:cp2, ", "subject alternative names: not asked for: cp2"),
        ("DNS:cp1, ", "DNS:cp1, email:a@example, ", "subject alternative names: there are some"),
        ("IP:10.0.0.11", "IP:10.0.0.12", "subject alternative names: missing: 10.0.0.11; not asked for: 10.0.0.12"),
        ("serverAuth", "serverAuth, clientAuth", "extended key usage: it is server auth, client auth, and server auth"),
        ("serverAuth", "clientAuth", "extended key usage: it is client auth"),
        ("serverAuth", "serverAuth, codeSigning", "extended key usage: it is for other uses too"),
        ("extendedKeyUsage = serverAuth\n", "", "extended key usage: it is not there, which is every use"),
        (
            "keyEncipherment",
            "keyEncipherment, keyCertSign",
            "key usage: it is digital signature, key encipherment, cert",
        ),
        ("digitalSignature, ", "", "key usage: it is key encipherment, and"),
        ("keyUsage = critical, digitalSignature, keyEncipherment\n", "", "key usage: it is not there"),
        ("CA:FALSE", "CA:TRUE", "basic constraints: it is an authority's"),
        (
            "authorityKey",
            "1.2.3.4 = critical, ASN1:UTF8String:x\nauthorityKey",
            "extensions: the critical extension 1.2.3.4",
        ),
    ] {
        let said = refused(from, to);
        assert!(said.starts_with(expected), "{from} -> {to}: {said}");
    }
    // What is not critical may be there.
    request.check(&request.signed(&format!("{good}1.2.3.4 = ASN1:UTF8String:x\n"), &[])).unwrap();
}

#[test]
fn refuses_another_key_issuer_subject_and_signature() {
    let request = Request::new();
    let extensions = request.extensions();
    let other = generate(KeyAlgorithm::EcdsaP256).unwrap();
    let of_other_key = sign(
        &crate::x509::request(&request.subject, &request.names, &other).unwrap(),
        &request.authority,
        &extensions,
        &[],
    );
    assert_eq!(request.check(&of_other_key), Err(Refusal::OtherKey));
    // An authority of the same name is another one.
    let of_other_issuer = sign(&request.text(), &authority("corp"), &extensions, &[]);
    let expected = Refusal::OtherIssuer { issuer: "corp".to_owned(), authority: "corp".to_owned() };
    assert_eq!(request.check(&of_other_issuer), Err(expected));
    assert_eq!(request.check(&request.signed(&extensions, &["-sha1"])), Err(Refusal::WeakSignature));
    for subject in ["/CN=kube-apiserver", "/O=auditors/O=ops@example/O=system:masters/CN=kube-apiserver"] {
        let said = request.check(&request.signed(&extensions, &["-subj", subject])).unwrap_err().to_string();
        assert!(said.starts_with("subject: it is") && said.contains("O=ops@example, CN=kube-apiserver"), "{said}");
    }
    let more = "/C=DE/O=auditors/O=ops@example/CN=kube-apiserver";
    let said = request.check(&request.signed(&extensions, &["-subj", more])).unwrap_err().to_string();
    assert!(said.contains("with other parts (2.5.4.6)"), "{said}");
    // Groups are a set.
    request.check(&request.signed(&extensions, &["-subj", "/O=ops@example/O=auditors/CN=kube-apiserver"])).unwrap();
    assert_eq!(request.check("no certificate"), Err(Refusal::Unreadable));
    assert_eq!(request.check(&request.text()), Err(Refusal::Unreadable));
}

#[test]
fn refuses_what_is_valid_for_too_long_or_too_short_or_not_now() {
    let request = Request::new();
    let answer = |days| request.signed(&request.extensions(), &["-days", days]);
    assert!(matches!(request.check(&answer("366")), Err(Refusal::TooLong { .. })));
    assert!(matches!(request.check(&answer("91")), Err(Refusal::TooShort(_))));
    let good = answer("92");
    request.check(&good).unwrap();
    let at = |now| request.with(|asked| check(&good, asked, request.authority.facts(), now));
    assert!(matches!(at(after(-1)), Err(Refusal::NotYetValid(_))));
    assert!(matches!(at(after(92)), Err(Refusal::TooShort(_))));
}

#[test]
fn nothing_outlives_its_authority_and_at_its_end_what_is_left_is_enough() {
    let request = Request {
        authority: mint_authority("corp", KeyAlgorithm::EcdsaP256, after(-1), after(10)).unwrap(),
        ..Request::new()
    };
    let answer = |days| request.check(&request.signed(&request.extensions(), &["-days", days]));
    assert!(matches!(answer("11"), Err(Refusal::TooLong { .. })));
    assert!(matches!(answer("2"), Err(Refusal::TooShort(_))));
    answer("9").unwrap();
}
