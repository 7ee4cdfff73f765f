//! New keys.

use aws_lc_rs::rand;
use base64::Engine;
use keyplane_core::pki::{PkiError, PrivateKey};
use keyplane_crds::KeyAlgorithm;
use rcgen::{KeyPair, RsaKeySize};

/// Makes a key. Seconds of work for a large RSA key: not for an async thread.
///
/// # Errors
/// If the library can't make it.
pub fn generate(algorithm: KeyAlgorithm) -> Result<PrivateKey, PkiError> {
    let pair = match algorithm {
        KeyAlgorithm::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyAlgorithm::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        KeyAlgorithm::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        KeyAlgorithm::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyAlgorithm::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
    }
    .map_err(|source| PkiError::Crypto { what: "making a private key", source })?;
    PrivateKey::from_pem("a new key", &pair.serialize_pem())
}

/// A new key for what is stored, as base64: 256 bits, which every provider of an `EncryptionConfiguration` takes.
///
/// # Errors
/// If the system gives no random numbers.
pub fn encryption_key() -> Result<String, PkiError> {
    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes).map_err(|_| PkiError::Random)?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_own_pem() {
        for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384] {
            let key = generate(algorithm).unwrap();
            let read = PrivateKey::from_pem("test", key.pem()).unwrap();
            assert_eq!(key.subject_public_key_info(), read.subject_public_key_info());
            assert!(!key.pem().contains('\r'), "{algorithm:?} has CRLF");
        }
    }

    #[test]
    fn a_key_says_of_what_kind_it_is() {
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
    fn nothing_of_a_key_is_in_its_debug_text_or_in_an_error() {
        let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
        let broken = key.pem().replacen('M', "!", 1);
        let error = PrivateKey::from_pem("cp1's apiserver.key", &broken).unwrap_err();
        assert_eq!(error.to_string(), "cp1's apiserver.key is no RSA or ECDSA private key in PEM form");
    }

    #[test]
    fn refuses_a_kind_of_key_that_kubeadm_does_not_read() {
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        assert!(PrivateKey::from_pem("test", &ed25519).is_err());
    }
}
