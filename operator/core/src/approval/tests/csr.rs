//! Builds requests from DER parts, so that a test can break any part.

use k8s_openapi::ByteString;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};

use crate::approval::der::{self, constructed, value};

pub const ORGANIZATION: &[u8] = &[0x55, 4, 10];
pub const COMMON_NAME: &[u8] = &[0x55, 4, 3];
pub const ORGANIZATIONAL_UNIT: &[u8] = &[0x55, 4, 11];
pub const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];
pub const CHALLENGE_PASSWORD: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 7];
pub const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
pub const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

/// The parts of a request, each as DER.
pub struct Csr {
    pub version: Vec<u8>,
    pub subject: Vec<Vec<u8>>,
    pub attributes: Vec<Vec<u8>>,
    /// Invalid content in the request info after the attributes.
    pub after_attributes: Vec<u8>,
    /// Invalid content after the request.
    pub trailing: Vec<u8>,
    pub signature_algorithm: Vec<Vec<u8>>,
    pub break_signature: bool,
    /// The `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    pub key: KeyPair,
}

/// Returns one relative distinguished name: a SET of one type and value.
pub fn rdn(oid: &[u8], tag: u8, text: &[u8]) -> Vec<u8> {
    constructed(der::SET, &[part(oid, tag, text)])
}

/// Returns one attribute of a name.
pub fn part(oid: &[u8], tag: u8, text: &[u8]) -> Vec<u8> {
    constructed(der::SEQUENCE, &[value(der::OID, oid), value(tag, text)])
}

pub fn dns(name: &str) -> Vec<u8> {
    value(der::DNS_NAME, name.as_bytes())
}

pub fn address(octets: &[u8]) -> Vec<u8> {
    value(der::IP_ADDRESS, octets)
}

pub fn extension(oid: &[u8], content: &[u8]) -> Vec<u8> {
    constructed(der::SEQUENCE, &[value(der::OID, oid), value(der::OCTET_STRING, content)])
}

pub fn names(names: &[Vec<u8>]) -> Vec<u8> {
    extension(SUBJECT_ALT_NAME, &constructed(der::SEQUENCE, names))
}

pub fn attribute(extensions: &[Vec<u8>]) -> Vec<u8> {
    let values = constructed(der::SET, &[constructed(der::SEQUENCE, extensions)]);
    constructed(der::SEQUENCE, &[value(der::OID, EXTENSION_REQUEST), values])
}

/// Encodes bytes as PEM. The byte type of Kubernetes provides Base64.
pub fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let text = serde_json::to_value(ByteString(der.to_vec())).unwrap();
    let lines: Vec<&str> =
        text.as_str().unwrap().as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")).into_bytes()
}

impl Csr {
    /// Returns a request of a node without names.
    pub fn of(node: &str) -> Self {
        Self::signed_with(node, &PKCS_ECDSA_P256_SHA256)
    }

    pub fn signed_with(node: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let common_name = format!("system:node:{node}");
        Self {
            version: value(der::INTEGER, &[0]),
            subject: vec![
                rdn(ORGANIZATION, der::PRINTABLE_STRING, b"system:nodes"),
                rdn(COMMON_NAME, der::PRINTABLE_STRING, common_name.as_bytes()),
            ],
            attributes: vec![],
            after_attributes: vec![],
            trailing: vec![],
            signature_algorithm: vec![value(der::OID, ECDSA_SHA256)],
            break_signature: false,
            public_key: key.subject_public_key_info(),
            key,
        }
    }

    /// Returns the request of `worker1` for its own name, changed by a test.
    pub fn but(change: impl FnOnce(&mut Self)) -> Self {
        let mut csr = Self::of("worker1").named(&["worker1"], &["10.0.0.21"]);
        change(&mut csr);
        csr
    }

    pub fn named(self, names: &[&str], addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|text| match text.parse().unwrap() {
            std::net::IpAddr::V4(v4) => address(&v4.octets()),
            std::net::IpAddr::V6(v6) => address(&v6.octets()),
        });
        let all: Vec<Vec<u8>> = names.iter().map(|name| dns(name)).chain(addresses).collect();
        self.with_sans(&all)
    }

    pub fn with_sans(mut self, sans: &[Vec<u8>]) -> Self {
        self.attributes = vec![attribute(&[names(sans)])];
        self
    }

    /// Returns the part that is signed.
    pub fn info(&self) -> Vec<u8> {
        constructed(
            der::SEQUENCE,
            &[
                self.version.clone(),
                constructed(der::SEQUENCE, &self.subject),
                self.public_key.clone(),
                constructed(der::ATTRIBUTES, &self.attributes),
                self.after_attributes.clone(),
            ],
        )
    }

    pub fn der(&self) -> Vec<u8> {
        self.sign(&self.info())
    }

    /// Signs bytes with the key of this request.
    pub fn sign(&self, info: &[u8]) -> Vec<u8> {
        let mut signature = self.key.sign(info).unwrap();
        if self.break_signature {
            *signature.last_mut().unwrap() ^= 1;
        }
        let algorithm = constructed(der::SEQUENCE, &self.signature_algorithm);
        let mut der = constructed(der::SEQUENCE, &[info.to_vec(), algorithm, der::bit_string(&signature)]);
        der.extend_from_slice(&self.trailing);
        der
    }

    pub fn pem(&self) -> Vec<u8> {
        pem("CERTIFICATE REQUEST", &self.der())
    }
}
