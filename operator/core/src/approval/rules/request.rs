//! Rules about the form of the request and its usages.

use keyplane_crds::{RequestKeyAlgorithm, reasons};
use x509_parser::oid_registry::{OID_EC_P256, OID_PKCS9_EXTENSION_REQUEST, OID_X509_EXT_SUBJECT_ALT_NAME};

use super::{Case, Outcome};
use crate::approval::pkcs10::{Key, Pkcs10Error};
use crate::approval::verdict::{Answer, shown};

/// The most that the check of the signature can do.
const MAX_RSA_BITS: usize = 8192;

const DIGITAL_SIGNATURE: &str = "digital signature";
const SERVER_AUTH: &str = "server auth";
const CLIENT_AUTH: &str = "client auth";
const KEY_ENCIPHERMENT: &str = "key encipherment";

/// The request must be one PEM block with one PKCS #10 request and nothing else, within the size limit. Parsers differ
/// about a second block, or bytes after the first request.
pub fn encoding(case: &Case<'_>) -> Outcome {
    match case.parsed() {
        Ok(_) => Ok(()),
        Err(error @ Pkcs10Error::TooLarge(_)) => Err(Answer::deny(reasons::REQUEST_TOO_LARGE, error.to_string())),
        Err(error) => Err(Answer::deny(reasons::REQUEST_MALFORMED, error.to_string())),
    }
}

/// The only attribute must be the extension request, as in a kubelet CSR (Go's `x509.CreateCertificateRequest`). A
/// second one would be a second list of extensions, and a challenge password has no meaning in a CSR.
pub fn attributes(case: &Case<'_>) -> Outcome {
    match case.pkcs10()?.attributes.as_slice() {
        [attribute] if *attribute == OID_PKCS9_EXTENSION_REQUEST => Ok(()),
        // Without attributes there are no names, which `san-kinds` reports more clearly.
        [] => Ok(()),
        _ => {
            let message = "the request must have one attribute, the request for extensions";
            Err(Answer::deny(reasons::ATTRIBUTE_NOT_ALLOWED, message.to_owned()))
        }
    }
}

/// The only extension must be the subject alternative name, as in a kubelet CSR. The object has the usages, and a
/// signer must not sign a request for a CA certificate by accident.
pub fn extensions(case: &Case<'_>) -> Outcome {
    let extensions = &case.pkcs10()?.extensions;
    if let Some(other) = extensions.iter().find(|extension| **extension != OID_X509_EXT_SUBJECT_ALT_NAME) {
        let message = format!("the request has the extension {other}; only subjectAltName is allowed");
        return Err(Answer::deny(reasons::EXTENSION_NOT_ALLOWED, message));
    }
    if extensions.len() > 1 {
        return Err(Answer::deny(
            reasons::EXTENSION_NOT_ALLOWED,
            "the request has subjectAltName more than once".to_owned(),
        ));
    }
    Ok(())
}

/// The policy must allow the key: by default ECDSA on P-256 (the key of kubelets) or P-384, or RSA with 2048 to 8192
/// bits. Ed25519 and P-521 are always denied. Kubelets don't generate them, and the signature check of the library does
/// not support P-521.
pub fn key(case: &Case<'_>) -> Outcome {
    let terms = case.facts.terms;
    let key = &case.pkcs10()?.key;
    let allows = |algorithm| terms.key_algorithms.contains(&algorithm);
    let (allowed, found) = match key {
        Key::Ecdsa { curve, .. } if *curve == OID_EC_P256 => {
            (allows(RequestKeyAlgorithm::EcdsaP256), "an ECDSA key on P-256".to_owned())
        }
        Key::Ecdsa { .. } => (allows(RequestKeyAlgorithm::EcdsaP384), "an ECDSA key on P-384".to_owned()),
        Key::Rsa { modulus, .. } => {
            let bits = Key::modulus_bits(modulus);
            let good = (terms.min_rsa_bits..=MAX_RSA_BITS).contains(&bits);
            (good && allows(RequestKeyAlgorithm::Rsa), format!("an RSA key of {bits} bits"))
        }
        Key::Other => (false, "an unsupported key".to_owned()),
    };
    if allowed {
        return Ok(());
    }
    let message = format!(
        "the request has {found}; signingRequests allows {}, and RSA keys from {} bits on",
        terms.key_algorithms.iter().map(|algorithm| name(*algorithm)).collect::<Vec<_>>().join(", "),
        terms.min_rsa_bits
    );
    Err(Answer::deny(reasons::KEY_NOT_ALLOWED, message))
}

const fn name(algorithm: RequestKeyAlgorithm) -> &'static str {
    match algorithm {
        RequestKeyAlgorithm::EcdsaP256 => "ECDSA-P256",
        RequestKeyAlgorithm::EcdsaP384 => "ECDSA-P384",
        RequestKeyAlgorithm::Rsa => "RSA",
    }
}

/// The request must be signed with its own key, so that the requester provably holds the key. The API server checks
/// this as well.
pub fn signature(case: &Case<'_>) -> Outcome {
    let pkcs10 = case.pkcs10()?;
    if pkcs10.key == Key::Other {
        return Err(Answer::NotEvaluated);
    }
    if pkcs10.signature_valid {
        return Ok(());
    }
    Err(Answer::deny(reasons::SIGNATURE_INVALID, "the request is not signed by its own key".to_owned()))
}

/// The request must not have content that the other rules did not see: values hidden after an attribute, lengths that
/// parsers read differently, or a name in a second encoding (approver-policy VC-53795).
pub fn canonical(case: &Case<'_>) -> Outcome {
    if case.pkcs10()?.is_canonical() {
        return Ok(());
    }
    let message = "the request has other content than a subject, a key, names and a signature, or is not in DER";
    Err(Answer::deny(reasons::REQUEST_NOT_CANONICAL, message.to_owned()))
}

/// The usages must be digital signature and server auth, optionally with key encipherment. Kubelets omit key
/// encipherment for ECDSA keys since 1.27. An approver that only checked for a subset accepted an empty list. With
/// client auth, the certificate would authenticate as the node.
pub fn serving_usages(case: &Case<'_>) -> Outcome {
    usages(case, SERVER_AUTH)
}

/// The usages must be digital signature and client auth, optionally with key encipherment (the signer's
/// `ValidateKubeletClientCSR`). With server auth, a node could use its client certificate as a server certificate.
pub fn client_usages(case: &Case<'_>) -> Outcome {
    usages(case, CLIENT_AUTH)
}

fn usages(case: &Case<'_>, purpose: &str) -> Outcome {
    let mut usages: Vec<&str> = case.request.usages.iter().map(String::as_str).collect();
    usages.sort_unstable();
    let mut allowed = [DIGITAL_SIGNATURE, purpose, KEY_ENCIPHERMENT];
    let without = {
        let mut two = [DIGITAL_SIGNATURE, purpose];
        two.sort_unstable();
        two
    };
    allowed.sort_unstable();
    if usages == without || usages == allowed {
        return Ok(());
    }
    let message = format!(
        "the usages are {}; allowed are {DIGITAL_SIGNATURE}, {purpose} and, optionally, {KEY_ENCIPHERMENT}",
        shown(&usages.join(", "))
    );
    Err(Answer::deny(reasons::USAGES_NOT_ALLOWED, message))
}

/// The requested lifetime must not exceed the limit of the policy. A CSR without a lifetime passes; kubelets request
/// none, and the maximum of the signer applies.
pub fn expiration(case: &Case<'_>) -> Outcome {
    let max = case.signer_terms()?.max_expiration_seconds;
    match case.request.expiration_seconds {
        Some(seconds) if seconds > max => Err(Answer::deny(
            reasons::EXPIRATION_TOO_LONG,
            format!("the requested lifetime of {seconds} seconds exceeds the limit of the policy, which is {max}"),
        )),
        _ => Ok(()),
    }
}
