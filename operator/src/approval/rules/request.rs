//! Whether the request is well made, and asks for a serving certificate only.

use x509_parser::oid_registry::{OID_PKCS9_EXTENSION_REQUEST, OID_X509_EXT_SUBJECT_ALT_NAME};

use super::{Case, Outcome};
use crate::approval::pkcs10::{Key, Pkcs10Error};
use crate::approval::verdict::{Answer, shown};

/// The least that NIST and the CA/Browser Forum allow, and the most that the check of the signature can do.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const DIGITAL_SIGNATURE: &str = "digital signature";
const SERVER_AUTH: &str = "server auth";
const KEY_ENCIPHERMENT: &str = "key encipherment";

/// The request is one PEM block with one PKCS#10 request and nothing else, and not too large. A second block, or bytes
/// after the first request, is what one reader sees and another doesn't.
pub fn encoding(case: &Case<'_>) -> Outcome {
    match case.parsed() {
        Ok(_) => Ok(()),
        Err(error @ Pkcs10Error::TooLarge(_)) => Err(Answer::deny("RequestTooLarge", error.to_string())),
        Err(error) => Err(Answer::deny("RequestMalformed", error.to_string())),
    }
}

/// The one attribute is the request for extensions: what a kubelet sends (Go's `x509.CreateCertificateRequest`). A
/// second one would be a second list of extensions, and a challenge password has no meaning here.
pub fn attributes(case: &Case<'_>) -> Outcome {
    match case.pkcs10()?.attributes.as_slice() {
        [attribute] if *attribute == OID_PKCS9_EXTENSION_REQUEST => Ok(()),
        // Then there are no names: `san-kinds` says so in clearer words.
        [] => Ok(()),
        _ => {
            let message = "the request must have one attribute, the request for extensions";
            Err(Answer::deny("AttributeNotAllowed", message.to_owned()))
        }
    }
}

/// The one extension is the subject alternative name: what a kubelet sends. Usages stand in the object, and a request
/// that wants to be a CA is nothing to sign by accident.
pub fn extensions(case: &Case<'_>) -> Outcome {
    let extensions = &case.pkcs10()?.extensions;
    if let Some(other) = extensions.iter().find(|extension| **extension != OID_X509_EXT_SUBJECT_ALT_NAME) {
        let message = format!("the request asks for the extension {other}; only subjectAltName is allowed");
        return Err(Answer::deny("ExtensionNotAllowed", message));
    }
    if extensions.len() > 1 {
        return Err(Answer::deny("ExtensionNotAllowed", "the request has subjectAltName more than once".to_owned()));
    }
    Ok(())
}

/// The key is ECDSA on P-256 (what kubelets make) or P-384, or RSA with 2048 to 8192 bits. Ed25519 and P-521 are refused:
/// no kubelet makes them, and the check of the signature here can't do P-521.
pub fn key(case: &Case<'_>) -> Outcome {
    let message = match &case.pkcs10()?.key {
        Key::Ecdsa { .. } => return Ok(()),
        Key::Rsa { modulus, .. } if RSA_BITS.contains(&Key::modulus_bits(modulus)) => return Ok(()),
        Key::Rsa { modulus, .. } => format!("the RSA key has {} bits", Key::modulus_bits(modulus)),
        Key::Other => "the key is of another kind".to_owned(),
    };
    Err(Answer::deny("KeyNotAllowed", format!("{message}; allowed are ECDSA P-256 and P-384, and RSA from 2048 bits")))
}

/// The request is signed by its own key, so that nobody gets a certificate for a key that isn't theirs. The API server
/// checks this as well.
pub fn signature(case: &Case<'_>) -> Outcome {
    let pkcs10 = case.pkcs10()?;
    if pkcs10.key == Key::Other {
        return Err(Answer::NotJudged);
    }
    if pkcs10.signature_valid {
        return Ok(());
    }
    Err(Answer::deny("SignatureInvalid", "the request is not signed by its own key".to_owned()))
}

/// The request is byte for byte what the other rules saw of it. What they did not see can't be judged, whatever it is:
/// values hidden after an attribute, lengths that two readers take differently, a name in a second encoding
/// (approver-policy VC-53795).
pub fn canonical(case: &Case<'_>) -> Outcome {
    if case.pkcs10()?.is_canonical() {
        return Ok(());
    }
    let message = "the request holds more than a subject, a key, names and a signature, or is not in DER";
    Err(Answer::deny("RequestNotCanonical", message.to_owned()))
}

/// The usages are digital signature and server auth, with key encipherment or without it: kubelets leave that out for
/// ECDSA keys since 1.27. An empty list passed an approver that looked for a subset; client auth would make the
/// certificate log in as the node.
pub fn usages(case: &Case<'_>) -> Outcome {
    let mut usages: Vec<&str> = case.request.usages.iter().map(String::as_str).collect();
    usages.sort_unstable();
    if usages == [DIGITAL_SIGNATURE, SERVER_AUTH] || usages == [DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, SERVER_AUTH] {
        return Ok(());
    }
    let message = format!(
        "the usages are {}; allowed are {DIGITAL_SIGNATURE}, {SERVER_AUTH} and, optionally, {KEY_ENCIPHERMENT}",
        shown(&usages.join(", "))
    );
    Err(Answer::deny("UsagesNotAllowed", message))
}

/// The lifetime that is asked for is not longer than the policy allows. None is fine: then the signer's own maximum
/// holds, and kubelets ask for none.
pub fn expiration(case: &Case<'_>) -> Outcome {
    let max = case.facts.policy.max_expiration_seconds;
    match case.request.expiration_seconds {
        Some(seconds) if seconds > max => Err(Answer::deny(
            "ExpirationTooLong",
            format!("the request is for {seconds} seconds, the policy has {max}"),
        )),
        _ => Ok(()),
    }
}
