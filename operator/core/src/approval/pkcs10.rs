//! The PKCS#10 request inside of the object: read strictly, and written again to see that nothing was overlooked.
//!
//! Parsers differ: what one skips, another signs (approver-policy once checked the parsed subject where the signer used
//! the raw one). The rules judge what is found here; [`Pkcs10::is_canonical`] then tells whether that is all there is, by
//! writing it again in DER and comparing every byte.

use x509_parser::asn1_rs::{Oid, Tag};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::der;

/// The largest request, in PEM bytes. A kubelet's request with an ECDSA key and a handful of addresses has about 500;
/// one with RSA-4096 and 64 long names still stays below.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const PEM_END: &str = "-----END CERTIFICATE REQUEST-----";

/// The signature algorithms that are good enough: the library would also take SHA-1, which Go refuses.
const SIGNATURE_ALGORITHMS: [Oid<'static>; 5] = [
    oid::OID_SIG_ECDSA_WITH_SHA256,
    oid::OID_SIG_ECDSA_WITH_SHA384,
    oid::OID_PKCS1_SHA256WITHRSA,
    oid::OID_PKCS1_SHA384WITHRSA,
    oid::OID_PKCS1_SHA512WITHRSA,
];

/// The curves that are good enough.
const CURVES: [Oid<'static>; 2] = [oid::OID_EC_P256, oid::OID_NIST_EC_P384];

/// Why a request could not be read at all.
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

/// A PKCS#10 request, with all that a rule has to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs10 {
    der: Vec<u8>,
    /// The subject: relative distinguished names, each with its parts.
    pub subject: Vec<Vec<SubjectPart>>,
    /// The public key.
    pub key: Key,
    /// The types of the attributes.
    pub attributes: Vec<Oid<'static>>,
    /// The types of the extensions that are asked for, in all attributes.
    pub extensions: Vec<Oid<'static>>,
    /// Whether the names are marked as critical.
    critical: bool,
    /// The subject alternative names, in all extensions.
    pub sans: Vec<San>,
    /// Whether the signature is by the key, with an algorithm that is good enough.
    pub signature_valid: bool,
    signature_algorithm: Oid<'static>,
    signature: Vec<u8>,
}

/// One type and value of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectPart {
    /// The type, for example that of the common name.
    pub oid: Oid<'static>,
    /// How the value is encoded.
    tag: Tag,
    /// The value.
    value: Vec<u8>,
}

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    /// A DNS name, as it is written.
    Dns(String),
    /// The octets of an IP address.
    Address(Vec<u8>),
    /// Another kind.
    Other(&'static str),
}

/// A public key of a kind that is approved, or another.
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
    /// Anything else: P-521 and Ed25519 too. No kubelet makes them, and what checks the signature here can't do P-521.
    Other,
}

impl Pkcs10 {
    /// Reads a request in PEM.
    ///
    /// # Errors
    /// If there is not exactly one, or it can't be read.
    pub fn parse(pem: &[u8]) -> Result<Self, Pkcs10Error> {
        Self::read(pem, true)
    }

    /// Reads a request without the work of checking its signature, which counts as invalid then: to see what a request is
    /// about, not to judge it.
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

    /// The organization and the common name, if the subject is exactly these two, each alone in its part of the name and
    /// a plain string.
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

    /// Whether the request is, byte for byte, what the rules saw of it: version 1, this subject, this key, no
    /// attribute or one with one extension with these names, this signature, in DER.
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
        // A request for a client certificate has no names, and so no attribute.
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
    /// The value as text: `PrintableString` or `UTF8String` (RFC 5280 wants these two), without control characters.
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
                    // 4 begins an uncompressed point. Whether it is one, the check of the signature sees.
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
    /// The length of an RSA key's modulus in bits.
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

/// The names of an extension, if it is the one that holds names.
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

/// The content of the one PEM block. A general PEM reader skips what stands around a block, and looks at one label only;
/// here the text has to be the block.
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
