//! Tests of the form of a request.

use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519};

use super::csr::{
    BASIC_CONSTRAINTS, CHALLENGE_PASSWORD, EXTENSION_REQUEST, SUBJECT_ALT_NAME, attribute, extension, names, pem,
};
use super::*;
use crate::approval::der::{self, constructed, value};
use crate::approval::pkcs10::MAX_REQUEST_BYTES;

const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const ECDSA_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// Created with Go's `x509.CreateCertificateRequest`, called like in the kubelet.
const FROM_GO: [&[u8]; 2] = [include_bytes!("kubelet-ecdsa.pem"), include_bytes!("kubelet-rsa.pem")];

fn sent(request: impl Into<Vec<u8>>) -> World {
    let mut world = World::new();
    world.request.request = request.into();
    world
}

#[test]
fn approves_csr_that_go_writes_for_kubelet() {
    for request in FROM_GO {
        sent(request).is_approved();
    }
}

#[test]
fn denies_request_that_is_not_one_pem_block() {
    let good = String::from_utf8(FROM_GO[0].to_vec()).unwrap();
    let bad = [
        String::new(),
        "x".to_owned(),
        format!("{good}{good}"),
        format!("comment\n{good}"),
        format!("{good}comment"),
        good.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
        good.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
        good.replace("END CERTIFICATE REQUEST", "END CERTIFICATE"),
        good.replacen("-----\n", "-----\nProc-Type: 4\n\n", 1),
        good.replacen('\n', "", 1),
        good.replacen("-----\n", "-----AAAA\n", 1),
        good.replacen("\n-----END", "-----END", 1),
        good.replacen("MII", "MI!", 1),
        good.replacen("MII", "MII=", 1),
        format!("{}{good}", FROM_GO[1].iter().map(|byte| char::from(*byte)).collect::<String>()),
    ];
    for request in bad {
        sent(request).is_denied("encoding", "RequestMalformed");
    }
    sent([FROM_GO[0], &[0xff]].concat()).is_denied("encoding", "RequestMalformed");
}

#[test]
fn accepts_white_space_and_windows_line_endings() {
    let good = String::from_utf8(FROM_GO[0].to_vec()).unwrap();
    sent(format!("\n  {good}\n\n")).is_approved();
    sent(good.replace('\n', "\r\n")).is_approved();
    sent(good.trim_end()).is_approved();
}

#[test]
fn denies_bytes_after_request() {
    World::with_csr(&Csr::but(|csr| csr.trailing = vec![0])).is_denied("encoding", "RequestMalformed");
    World::with_csr(&Csr::but(|csr| csr.trailing = value(der::NULL, &[]))).is_denied("encoding", "RequestMalformed");
}

#[test]
fn denies_content_that_is_not_a_request() {
    sent(pem("CERTIFICATE REQUEST", &[])).is_denied("encoding", "RequestMalformed");
    sent(pem("CERTIFICATE REQUEST", &value(der::SEQUENCE, &[]))).is_denied("encoding", "RequestMalformed");
    let der = Csr::but(|_| ()).der();
    sent(pem("CERTIFICATE REQUEST", &der[..der.len() - 1])).is_denied("encoding", "RequestMalformed");
}

#[test]
fn denies_too_large_request_before_parsing() {
    let good = String::from_utf8(FROM_GO[0].to_vec()).unwrap();
    let padded = |size: usize| format!("{good}{}", " ".repeat(size - good.len()));
    sent(padded(MAX_REQUEST_BYTES)).is_approved();
    sent(padded(MAX_REQUEST_BYTES + 1)).is_denied("encoding", "RequestTooLarge");
}

#[test]
fn denies_other_attributes() {
    let password = constructed(
        der::SEQUENCE,
        &[value(der::OID, CHALLENGE_PASSWORD), constructed(der::SET, &[value(der::UTF8_STRING, b"x")])],
    );
    World::with_csr(&Csr::but(|csr| csr.attributes.push(password.clone())))
        .is_denied("attributes", "AttributeNotAllowed");
    let unknown = constructed(der::SEQUENCE, &[value(der::OID, &[0x2a, 3]), constructed(der::SET, &[password])]);
    World::with_csr(&Csr::but(|csr| csr.attributes.insert(0, unknown))).is_denied("attributes", "AttributeNotAllowed");
}

#[test]
fn denies_second_extension_request() {
    let second = attribute(&[names(&[dns("kubernetes")])]);
    World::with_csr(&Csr::but(|csr| csr.attributes.push(second))).is_denied("attributes", "AttributeNotAllowed");
    World::with_csr(&Csr::but(|csr| csr.attributes.push(attribute(&[]))))
        .is_denied("attributes", "AttributeNotAllowed");
}

#[test]
fn denies_other_extensions() {
    let is_ca = extension(BASIC_CONSTRAINTS, &constructed(der::SEQUENCE, &[value(der::BOOLEAN, &[0xff])]));
    let csr = Csr::but(|csr| csr.attributes = vec![attribute(&[names(&[dns("worker1")]), is_ca])]);
    World::with_csr(&csr).is_denied("extensions", "ExtensionNotAllowed");
    let unknown = extension(&[0x2a, 3], b"x");
    let csr = Csr::but(|csr| csr.attributes = vec![attribute(&[unknown, names(&[dns("worker1")])])]);
    World::with_csr(&csr).is_denied("extensions", "ExtensionNotAllowed");
}

#[test]
fn denies_names_in_two_extensions() {
    let csr = Csr::but(|csr| {
        csr.attributes = vec![attribute(&[names(&[dns("worker1")]), names(&[address(&[10, 0, 0, 21])])])];
    });
    World::with_csr(&csr).is_denied("extensions", "ExtensionNotAllowed");
}

#[test]
fn denies_request_not_signed_by_its_key() {
    World::with_csr(&Csr::but(|csr| csr.break_signature = true)).is_denied("signature", "SignatureInvalid");
    let (one, other) = (Csr::but(|_| ()).der(), Csr::but(|_| ()).der());
    // The content of one request with the signature of another; both have the same layout up to the key.
    let mut mixed = one.clone();
    let at = one.iter().zip(&other).position(|(a, b)| a != b).unwrap();
    mixed[at] = other[at];
    assert_eq!(sent(pem("CERTIFICATE REQUEST", &mixed)).evaluate().verdict, Verdict::Deny);
}

#[test]
fn approves_p384_and_denies_p521_ed25519_and_short_rsa() {
    let with = |algorithm, oid: &[u8]| {
        let mut csr = Csr::signed_with("worker1", algorithm).named(&["worker1"], &["10.0.0.21"]);
        csr.signature_algorithm = vec![value(der::OID, oid)];
        World::with_csr(&csr)
    };
    with(&PKCS_ECDSA_P384_SHA384, ECDSA_SHA384).is_approved();
    with(&PKCS_ECDSA_P521_SHA512, ECDSA_SHA512).is_denied("key", "KeyNotAllowed");
    with(&PKCS_ED25519, ED25519).is_denied("key", "KeyNotAllowed");
    sent(include_bytes!("rsa-1024.pem")).is_denied("key", "KeyNotAllowed");
}

#[test]
fn denies_compressed_point() {
    let csr = Csr::but(|csr| {
        // The last 65 bytes are an uncompressed point of P-256: 4, x, y. A compressed point is 2 or 3 (depending on y),
        // x.
        let (head, point) = csr.public_key.split_at(csr.public_key.len() - 65);
        assert_eq!((head[1], head.len(), point[0]), (89, 26, 4));
        let compressed = [&[2 + (point[64] & 1)], &point[1..33]].concat();
        csr.public_key = constructed(der::SEQUENCE, &[head[2..23].to_vec(), der::bit_string(&compressed)]);
    });
    World::with_csr(&csr).is_denied("key", "KeyNotAllowed");
}

#[test]
fn denies_sha1_signature() {
    // Created with openssl.
    sent(include_bytes!("rsa-sha1.pem")).is_denied("signature", "SignatureInvalid");
}

#[test]
fn denies_content_that_the_parser_ignores() {
    // Content after the attributes, which a lenient parser excludes from the signature check.
    let csr = Csr::but(|csr| csr.after_attributes = attribute(&[names(&[dns("kubernetes")])]));
    assert_eq!(World::with_csr(&csr).evaluate().verdict, Verdict::Deny);
    // A second value in the set of an attribute.
    let values = [
        constructed(der::SEQUENCE, &[names(&[dns("worker1")])]),
        constructed(der::SEQUENCE, &[names(&[dns("kubernetes")])]),
    ];
    let two = constructed(der::SEQUENCE, &[value(der::OID, EXTENSION_REQUEST), constructed(der::SET, &values)]);
    World::with_csr(&Csr::but(|csr| csr.attributes = vec![two])).is_denied("canonical", "RequestNotCanonical");
    // Bytes after the names, within the extension.
    let mut content = constructed(der::SEQUENCE, &[dns("worker1")]);
    content.extend(constructed(der::SEQUENCE, &[dns("kubernetes")]));
    let csr = Csr::but(|csr| csr.attributes = vec![attribute(&[extension(SUBJECT_ALT_NAME, &content)])]);
    assert_eq!(World::with_csr(&csr).evaluate().verdict, Verdict::Deny);
}

#[test]
fn denies_non_minimal_length() {
    let long = [&[der::DNS_NAME, 0x81, 7][..], b"worker1"].concat();
    assert_eq!(World::with_csr(&Csr::but(|_| ()).with_sans(&[long])).evaluate().verdict, Verdict::Deny);
}

#[test]
fn denies_other_version_than_1() {
    let csr = Csr::but(|csr| csr.version = value(der::INTEGER, &[1]));
    World::with_csr(&csr).is_denied("canonical", "RequestNotCanonical");
}

#[test]
fn denies_parameters_of_algorithm_without_parameters() {
    let csr = Csr::but(|csr| csr.signature_algorithm.push(value(der::NULL, &[])));
    World::with_csr(&csr).is_denied("canonical", "RequestNotCanonical");
}

#[test]
fn accepts_critical_names_extension() {
    let sans = constructed(der::SEQUENCE, &[dns("worker1")]);
    let marked = |flag: u8| {
        let parts = [value(der::OID, SUBJECT_ALT_NAME), value(der::BOOLEAN, &[flag]), value(der::OCTET_STRING, &sans)];
        World::with_csr(&Csr::but(|csr| csr.attributes = vec![attribute(&[constructed(der::SEQUENCE, &parts)])]))
    };
    marked(0xff).is_approved();
    // DER omits a default value.
    marked(0).is_denied("canonical", "RequestNotCanonical");
}

#[test]
fn approves_usages_with_optional_key_encipherment_in_any_order() {
    for usages in [
        vec!["server auth", "digital signature"],
        vec!["digital signature", "key encipherment", "server auth"],
        vec!["key encipherment", "server auth", "digital signature"],
    ] {
        let mut world = World::new();
        world.request.usages = usages.into_iter().map(ToOwned::to_owned).collect();
        world.is_approved();
    }
}

#[test]
fn denies_other_usages() {
    for usages in [
        vec![],
        vec!["server auth"],
        vec!["digital signature"],
        vec!["digital signature", "key encipherment"],
        vec!["digital signature", "client auth"],
        vec!["digital signature", "server auth", "client auth"],
        vec!["digital signature", "key encipherment", "server auth", "client auth"],
        vec!["digital signature", "digital signature", "server auth"],
        vec!["digital signature", "server auth", "any"],
        vec!["Digital Signature", "server auth"],
    ] {
        let mut world = World::new();
        world.request.usages = usages.into_iter().map(ToOwned::to_owned).collect();
        world.is_denied("usages", "UsagesNotAllowed");
    }
}

#[test]
fn denies_lifetime_above_policy_limit() {
    let mut world = World::new();
    for (seconds, approved) in [(None, true), (Some(600), true), (Some(31_708_800), true), (Some(31_708_801), false)] {
        world.request.expiration_seconds = seconds;
        if approved { world.is_approved() } else { world.is_denied("expiration", "ExpirationTooLong") }
    }
    world.policy.kubelet_serving.max_expiration_seconds = 3600;
    world.request.expiration_seconds = Some(3601);
    world.is_denied("expiration", "ExpirationTooLong");
}
