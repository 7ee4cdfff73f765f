//! Parses the PKCS #10 request of a CSR strictly, and encodes it again to detect content that the parser ignored.
//!
//! Parsers differ, and one may ignore content that another one signs. approver-policy once checked the parsed subject,
//! while the signer used the raw one. The rules use the parsed request. [`Pkcs10::is_canonical`] encodes the parsed
//! request as DER and compares all bytes.

use x509_parser::asn1_rs::{Oid, Tag};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::der;

/// The maximum size of a PEM request in bytes. A kubelet CSR with an ECDSA key and a few addresses has about 500 bytes.
/// A CSR with RSA-4096 and 64 long names is still smaller than the limit.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const PEM_END: &str = "-----END CERTIFICATE REQUEST-----";

/// The accepted signature algorithms. The library also accepts SHA-1, which Go rejects.
const SIGNATURE_ALGORITHMS: [Oid<'static>; 5] = [
    oid::OID_SIG_ECDSA_WITH_SHA256,
    oid::OID_SIG_ECDSA_WITH_SHA384,
    oid::OID_PKCS1_SHA256WITHRSA,
    oid::OID_PKCS1_SHA384WITHRSA,
    oid::OID_PKCS1_SHA512WITHRSA,
];

/// The accepted curves.
const CURVES: [Oid<'static>; 2] = [oid::OID_EC_P256, oid::OID_NIST_EC_P384];

/// The reason why a request can't be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs10Error {
    /// More than [`MAX_REQUEST_BYTES`].
    #[error("the request has {0} bytes, more than {MAX_REQUEST_BYTES}")]
    TooLarge(usize),
    /// Not exactly one PEM block with the label and nothing around it.
    #[error("the request must be one PEM block CERTIFICATE REQUEST and nothing else")]
    Pem,
    /// The block holds no PKCS#10, or more than that.
    #[error("the PEM block must hold one PKCS#10 request in DER and nothing else")]
    Der,
}

/// A parsed PKCS #10 request with all fields that the rules use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs10 {
    der: Vec<u8>,
    /// The subject: relative distinguished names with their attributes.
    pub subject: Vec<Vec<SubjectPart>>,
    /// The public key.
    pub key: Key,
    /// The types of the attributes.
    pub attributes: Vec<Oid<'static>>,
    /// The types of the requested extensions in all attributes.
    pub extensions: Vec<Oid<'static>>,
    /// Whether the extension with the names is critical.
    critical: bool,
    /// The subject alternative names of all extensions.
    pub sans: Vec<San>,
    /// Whether the signature matches the key and uses an accepted algorithm.
    pub signature_valid: bool,
    signature_algorithm: Oid<'static>,
    signature: Vec<u8>,
}

/// One attribute of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectPart {
    /// The type, for example that of the common name.
    pub oid: Oid<'static>,
    /// The encoding of the value.
    tag: Tag,
    /// The value.
    value: Vec<u8>,
}

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    /// A DNS name, unchanged.
    Dns(String),
    /// The octets of an IP address.
    Address(Vec<u8>),
    /// Another kind.
    Other(&'static str),
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A point on P-256 or P-384, uncompressed.
    Ecdsa {
        /// The curve.
        curve: Oid<'static>,
        /// The point.
        point: Vec<u8>,
    },
    /// An RSA key.
    Rsa {
        /// The modulus, as an INTEGER's content.
        modulus: Vec<u8>,
        /// The exponent, as an INTEGER's content.
        exponent: Vec<u8>,
    },
    /// Any other key, such as P-521 and Ed25519. Kubelets don't generate them, and the signature check of the library
    /// does not support P-521.
    Other,
}

impl Pkcs10 {
    /// Parses a PEM request.
    ///
    /// # Errors
    /// If the text is not exactly one valid request.
    pub fn parse(pem: &[u8]) -> Result<Self, Pkcs10Error> {
        Self::read(pem, true)
    }

    /// Parses a request without the signature check; the signature then counts as invalid. This is for display and
    /// lookups, not for a verdict.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn skim(pem: &[u8]) -> Result<Self, Pkcs10Error> {
        Self::read(pem, false)
    }

    fn read(pem: &[u8], check_signature: bool) -> Result<Self, Pkcs10Error> {
        if pem.len() > MAX_REQUEST_BYTES {
            return Err(Pkcs10Error::TooLarge(pem.len()));
        }
        let der = decode(pem).ok_or(Pkcs10Error::Pem)?;
        let (rest, parsed) = X509CertificationRequest::from_der(&der).map_err(|_| Pkcs10Error::Der)?;
        if !rest.is_empty() {
            return Err(Pkcs10Error::Der);
        }
        let info = &parsed.certification_request_info;
        let subject = info.subject.iter_rdn().map(|rdn| {
            rdn.iter()
                .map(|part| SubjectPart {
                    oid: part.attr_type().to_owned(),
                    tag: part.attr_value().tag(),
                    value: part.attr_value().data.to_vec(),
                })
                .collect()
        });
        let extensions: Vec<&X509Extension<'_>> = info
            .iter_attributes()
            .filter_map(|attribute| match attribute.parsed_attribute() {
                ParsedCriAttribute::ExtensionRequest(requested) => Some(&requested.extensions),
                _ => None,
            })
            .flatten()
            .collect();
        Ok(Self {
            subject: subject.collect(),
            key: Key::from(&info.subject_pki),
            attributes: info.iter_attributes().map(|attribute| attribute.oid.to_owned()).collect(),
            extensions: extensions.iter().map(|extension| extension.oid.to_owned()).collect(),
            critical: extensions.iter().any(|extension| extension.critical),
            sans: extensions.iter().flat_map(|extension| sans(extension)).collect(),
            signature_valid: check_signature
                && SIGNATURE_ALGORITHMS.contains(&parsed.signature_algorithm.algorithm)
                && parsed.verify_signature().is_ok(),
            signature_algorithm: parsed.signature_algorithm.algorithm.to_owned(),
            signature: parsed.signature_value.data.to_vec(),
            der: der.clone(),
        })
    }

    /// Returns the organization and the common name, if the subject consists of exactly these two, each in its own
    /// relative distinguished name and as a plain string.
    #[must_use]
    pub fn identity(&self) -> Option<(&str, &str)> {
        let (mut organization, mut common_name) = (None, None);
        for parts in &self.subject {
            let [part] = parts.as_slice() else { return None };
            let place = if part.oid == oid::OID_X509_ORGANIZATION_NAME {
                &mut organization
            } else if part.oid == oid::OID_X509_COMMON_NAME {
                &mut common_name
            } else {
                return None;
            };
            if place.replace(part.text()?).is_some() {
                return None;
            }
        }
        organization.zip(common_name)
    }

    /// Returns whether the request has no content other than the parsed fields: version 1, this subject, this key, at
    /// most one attribute with one extension with these names, and this signature, all in DER.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        self.rewrite().is_some_and(|rewritten| rewritten == self.der)
    }

    fn rewrite(&self) -> Option<Vec<u8>> {
        let subject: Vec<Vec<u8>> = self
            .subject
            .iter()
            .map(|parts| {
                let parts: Option<Vec<Vec<u8>>> = parts.iter().map(SubjectPart::rewrite).collect();
                Some(der::constructed(der::SET, &parts?))
            })
            .collect::<Option<_>>()?;
        let sans: Vec<Vec<u8>> = self.sans.iter().map(San::rewrite).collect::<Option<_>>()?;
        let mut extension = vec![object_identifier(&oid::OID_X509_EXT_SUBJECT_ALT_NAME)];
        if self.critical {
            extension.push(der::value(der::BOOLEAN, &[0xff]));
        }
        extension.push(der::value(der::OCTET_STRING, &der::constructed(der::SEQUENCE, &sans)));
        let extensions = der::constructed(der::SEQUENCE, &[der::constructed(der::SEQUENCE, &extension)]);
        let attribute =
            [object_identifier(&oid::OID_PKCS9_EXTENSION_REQUEST), der::constructed(der::SET, &[extensions])];
        // A request for a client certificate has no names, so it has no attribute.
        let attributes = match self.attributes.as_slice() {
            [] => vec![],
            _ => der::constructed(der::SEQUENCE, &attribute),
        };
        let info = [
            der::value(der::INTEGER, &[0]),
            der::constructed(der::SEQUENCE, &subject),
            self.key.rewrite()?,
            der::value(der::ATTRIBUTES, &attributes),
        ];
        let mut algorithm = vec![object_identifier(&self.signature_algorithm)];
        // RFC 4055 and RFC 5758: RSA has NULL parameters, ECDSA none.
        if matches!(self.key, Key::Rsa { .. }) {
            algorithm.push(der::value(der::NULL, &[]));
        }
        let request = [
            der::constructed(der::SEQUENCE, &info),
            der::constructed(der::SEQUENCE, &algorithm),
            der::bit_string(&self.signature),
        ];
        Some(der::constructed(der::SEQUENCE, &request))
    }
}

impl SubjectPart {
    /// Returns the value as text. RFC 5280 requires `PrintableString` or `UTF8String`; control characters are rejected.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let allowed = self.tag == Tag::PrintableString || self.tag == Tag::Utf8String;
        let text = std::str::from_utf8(&self.value).ok()?;
        (allowed && !text.is_empty() && !text.contains(char::is_control)).then_some(text)
    }

    fn rewrite(&self) -> Option<Vec<u8>> {
        let tag = match self.tag {
            Tag::PrintableString => der::PRINTABLE_STRING,
            Tag::Utf8String => der::UTF8_STRING,
            _ => return None,
        };
        Some(der::constructed(der::SEQUENCE, &[object_identifier(&self.oid), der::value(tag, &self.value)]))
    }
}

impl San {
    fn rewrite(&self) -> Option<Vec<u8>> {
        match self {
            Self::Dns(name) => Some(der::value(der::DNS_NAME, name.as_bytes())),
            Self::Address(octets) => Some(der::value(der::IP_ADDRESS, octets)),
            Self::Other(_) => None,
        }
    }
}

impl From<&SubjectPublicKeyInfo<'_>> for Key {
    fn from(info: &SubjectPublicKeyInfo<'_>) -> Self {
        match info.parsed() {
            Ok(PublicKey::RSA(key)) => Self::Rsa { modulus: key.modulus.to_vec(), exponent: key.exponent.to_vec() },
            Ok(PublicKey::EC(point)) => {
                let curve = info.algorithm.parameters().and_then(|curve| curve.as_oid().ok());
                match curve {
                    // 4 is the first byte of an uncompressed point. The signature check validates the point.
                    Some(curve) if CURVES.contains(&curve) && point.data().first() == Some(&4) => {
                        Self::Ecdsa { curve: curve.to_owned(), point: point.data().to_vec() }
                    }
                    _ => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }
}

impl Key {
    /// Returns the length of an RSA modulus in bits.
    #[must_use]
    pub fn modulus_bits(modulus: &[u8]) -> usize {
        let significant = &modulus[modulus.iter().take_while(|byte| **byte == 0).count()..];
        significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
    }

    fn rewrite(&self) -> Option<Vec<u8>> {
        let (algorithm, parameters, key) = match self {
            Self::Ecdsa { curve, point } => (&oid::OID_KEY_TYPE_EC_PUBLIC_KEY, object_identifier(curve), point.clone()),
            Self::Rsa { modulus, exponent } => {
                let numbers = [der::value(der::INTEGER, modulus), der::value(der::INTEGER, exponent)];
                let key = der::constructed(der::SEQUENCE, &numbers);
                (&oid::OID_PKCS1_RSAENCRYPTION, der::value(der::NULL, &[]), key)
            }
            Self::Other => return None,
        };
        let algorithm = der::constructed(der::SEQUENCE, &[object_identifier(algorithm), parameters]);
        Some(der::constructed(der::SEQUENCE, &[algorithm, der::bit_string(&key)]))
    }
}

/// Returns the names of an extension, if it is a subject alternative name extension.
fn sans(extension: &X509Extension<'_>) -> Vec<San> {
    match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => names
            .general_names
            .iter()
            .map(|name| match name {
                GeneralName::DNSName(name) => San::Dns((*name).to_owned()),
                GeneralName::IPAddress(octets) => San::Address(octets.to_vec()),
                GeneralName::RFC822Name(_) => San::Other("an e-mail address"),
                GeneralName::URI(_) => San::Other("a URI"),
                GeneralName::DirectoryName(_) => San::Other("a directory name"),
                GeneralName::OtherName(..) => San::Other("another name"),
                GeneralName::RegisteredID(_) => San::Other("a registered ID"),
                _ => San::Other("a name of an unknown kind"),
            })
            .collect(),
        _ if extension.oid == oid::OID_X509_EXT_SUBJECT_ALT_NAME => vec![San::Other("something unreadable")],
        _ => vec![],
    }
}

fn object_identifier(oid: &Oid<'_>) -> Vec<u8> {
    der::value(der::OID, oid.as_bytes())
}

/// Decodes the single PEM block. A general PEM parser ignores text around a block and checks only one label; here the
/// text must consist of the block alone.
fn decode(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?.trim_ascii();
    let body = text.strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\r' | b'\n');
    if !body.starts_with(['\r', '\n']) || !body.bytes().all(is_base64) {
        return None;
    }
    let (_, block) = x509_parser::pem::parse_x509_pem(text.as_bytes()).ok()?;
    Some(block.contents)
}
