//! Reads and replaces encoded fields of a certificate or request, for content that rcgen can't encode.

use rcgen::SigningKey;
use yasna::ASN1Result;

use keyplane_core::pki::{PkiError, PrivateKey};

/// A field of the signed part of a certificate (RFC 5280, 4.1), by its position. The obsolete unique identifiers are
/// not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    SerialNumber = 1,
    Algorithm = 2,
    Issuer = 3,
    Validity = 4,
    Subject = 5,
}

/// Version, serial number, algorithm, issuer, validity, subject, key and extensions.
const FIELDS: usize = 8;

/// The fields of a request (RFC 2986, 4.1): version, subject, key and attributes.
const REQUEST_FIELDS: usize = 4;
const REQUEST_SUBJECT: usize = 1;

/// Returns a field of a certificate as DER.
pub(super) fn field(certificate: &[u8], field: Field) -> Result<Vec<u8>, PkiError> {
    let (mut fields, _) = read(certificate, FIELDS)?;
    Ok(fields.swap_remove(field as usize))
}

/// Replaces fields of a certificate and signs the result.
pub(super) fn replace_fields(
    certificate: &[u8],
    changes: impl IntoIterator<Item = (Field, Vec<u8>)>,
    ca_key: &PrivateKey,
) -> Result<Vec<u8>, PkiError> {
    let (mut fields, mut algorithm) = read(certificate, FIELDS)?;
    for (field, content) in changes {
        if field == Field::Algorithm {
            algorithm.clone_from(&content);
        }
        fields[field as usize] = content;
    }
    signed(&fields, &algorithm, ca_key)
}

/// Replaces the subject of a request and signs the result.
pub(super) fn replace_subject(subject: Vec<u8>, request: &[u8], key: &PrivateKey) -> Result<Vec<u8>, PkiError> {
    let (mut fields, algorithm) = read(request, REQUEST_FIELDS)?;
    fields[REQUEST_SUBJECT] = subject;
    signed(&fields, &algorithm, key)
}

fn signed(fields: &[Vec<u8>], algorithm: &[u8], key: &PrivateKey) -> Result<Vec<u8>, PkiError> {
    let body = yasna::construct_der(|writer| {
        writer.write_sequence(|body| fields.iter().for_each(|field| body.next().write_der(field)));
    });
    let signature =
        key.signing_key().sign(&body).map_err(|source| PkiError::Crypto { what: "signing a certificate", source })?;
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|certificate| {
            certificate.next().write_der(&body);
            certificate.next().write_der(algorithm);
            certificate.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

/// Returns the fields of the signed part, and the signature algorithm.
fn read(signed: &[u8], count: usize) -> Result<(Vec<Vec<u8>>, Vec<u8>), PkiError> {
    let parsed = yasna::parse_der(signed, |reader| {
        reader.read_sequence(|certificate| {
            let fields = certificate
                .next()
                .read_sequence(|body| (0..count).map(|_| body.next().read_der()).collect::<ASN1Result<Vec<_>>>())?;
            let algorithm = certificate.next().read_der()?;
            certificate.next().read_der()?;
            Ok((fields, algorithm))
        })
    });
    parsed.map_err(|_| PkiError::NoCertificate { what: "a certificate with unsupported fields".to_owned() })
}
