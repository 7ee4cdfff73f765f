//! Generates keys.

use aws_lc_rs::rand;
use base64::Engine;
use keyplane_core::pki::{PkiError, PrivateKey};
use keyplane_crds::KeyAlgorithm;
use rcgen::{KeyPair, RsaKeySize};

/// Generates a private key. A large RSA key takes seconds, so async code calls this on a blocking thread.
///
/// # Errors
/// If the library fails.
pub fn generate(algorithm: KeyAlgorithm) -> Result<PrivateKey, PkiError> {
    let pair = match algorithm {
        KeyAlgorithm::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyAlgorithm::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        KeyAlgorithm::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        KeyAlgorithm::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyAlgorithm::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
    }
    .map_err(|source| PkiError::Crypto { what: "generating a private key", source })?;
    PrivateKey::from_pem("a new key", &pair.serialize_pem())
}

/// Generates a key for encryption at rest, as base64. All providers of an `EncryptionConfiguration` support 256 bits.
///
/// # Errors
/// If the random number generator of the system fails.
pub fn encryption_key() -> Result<String, PkiError> {
    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes).map_err(|_| PkiError::Random)?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_generated_keys_from_pem() {
        for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384] {
            let key = generate(algorithm).unwrap();
            let read = PrivateKey::from_pem("test", key.pem()).unwrap();
            assert_eq!(key.subject_public_key_info(), read.subject_public_key_info());
            assert!(!key.pem().contains('\r'), "{algorithm:?} has CRLF");
        }
    }

    #[test]
    fn reports_algorithm_of_generated_keys() {
        for algorithm in [
            KeyAlgorithm::Rsa2048,
            KeyAlgorithm::Rsa3072,
            KeyAlgorithm::Rsa4096,
            KeyAlgorithm::EcdsaP256,
            KeyAlgorithm::EcdsaP384,
        ] {
            assert_eq!(generate(algorithm).unwrap().algorithm(), Some(algorithm));
        }
    }

    #[test]
    fn debug_output_and_errors_contain_no_key_material() {
        let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
        let broken = key.pem().replacen('M', "!", 1);
        let error = PrivateKey::from_pem("cp1's apiserver.key", &broken).unwrap_err();
        assert_eq!(error.to_string(), "cp1's apiserver.key is not an RSA or ECDSA private key in PEM form");
    }

    #[test]
    fn rejects_key_algorithm_that_kubeadm_does_not_support() {
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        assert!(PrivateKey::from_pem("test", &ed25519).is_err());
    }
}
