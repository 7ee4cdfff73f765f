//! Private keys: made, read, and written as PEM, never shown.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::rand;
use base64::Engine;
use keyplane_crds::KeyAlgorithm;
use rcgen::{KeyPair, PublicKeyData, RsaKeySize, SigningKey};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::PkiError;
use crate::kubeconfig::base64;

/// A private key. Its PEM text is kept as it was read, so that writing it back changes nothing.
pub struct PrivateKey {
    pair: KeyPair,
    pem: String,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl PrivateKey {
    /// Makes a key. Seconds of work for a large RSA key: not for an async thread.
    ///
    /// # Errors
    /// If the library can't make it.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, PkiError> {
        let pair = match algorithm {
            KeyAlgorithm::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
            KeyAlgorithm::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
            KeyAlgorithm::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
            KeyAlgorithm::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyAlgorithm::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        }
        .map_err(|source| PkiError::Crypto { what: "making a private key", source })?;
        let pem = pair.serialize_pem();
        Ok(Self { pair, pem })
    }

    /// Reads a key in PKCS#8, PKCS#1 or SEC1 form; `what` names it in the error.
    ///
    /// # Errors
    /// If the text is no RSA or ECDSA key. The error holds nothing of the text.
    pub fn from_pem(what: &str, pem: &str) -> Result<Self, PkiError> {
        let error = || PkiError::NoPrivateKey { what: what.to_owned() };
        let pair = KeyPair::from_pem(pem).map_err(|_| error())?;
        // kubeadm reads RSA and ECDSA keys, and no others (pkiutil.TryLoadPrivatePublicKeyFromDisk).
        let usable = [
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
        ];
        if !usable.iter().any(|algorithm| pair.is_compatible(algorithm)) {
            return Err(error());
        }
        Ok(Self { pair, pem: pem.to_owned() })
    }

    /// The key as PEM. What is made here is PKCS#8, which openssl, Go and kubeadm read.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The public key as PEM (`PUBLIC KEY`, `SubjectPublicKeyInfo`).
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        // rcgen writes lines with CRLF; Go, openssl and kubeadm write LF.
        self.pair.public_key_pem().replace("\r\n", "\n")
    }

    /// The public key as DER (`SubjectPublicKeyInfo`).
    #[must_use]
    pub fn subject_public_key_info(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// By which tokens name the key that signed them: kube-apiserver's `kid`, the SHA-256 of the public key in base64url
    /// (`pkg/serviceaccount/jwt.go`, `keyIDFromPublicKey`).
    #[must_use]
    pub fn token_key_id(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.subject_public_key_info());
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest.as_ref())
    }

    /// What kind of key it is; nothing for one that Keyplane does not make.
    #[must_use]
    pub fn algorithm(&self) -> Option<KeyAlgorithm> {
        let der = self.subject_public_key_info();
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).ok()?;
        match info.parsed().ok()? {
            PublicKey::RSA(key) => match key.key_size() {
                2048 => Some(KeyAlgorithm::Rsa2048),
                3072 => Some(KeyAlgorithm::Rsa3072),
                4096 => Some(KeyAlgorithm::Rsa4096),
                _ => None,
            },
            PublicKey::EC(point) => match point.key_size() {
                256 => Some(KeyAlgorithm::EcdsaP256),
                384 => Some(KeyAlgorithm::EcdsaP384),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether signatures of this key can be verified here: those of P-521, which Kubernetes reads too, can't.
    pub(super) fn is_verified_here(&self) -> bool {
        !self.pair.is_compatible(&rcgen::PKCS_ECDSA_P521_SHA512)
    }

    pub(super) fn signing_key(&self) -> &(impl SigningKey + use<>) {
        &self.pair
    }
}

/// A new key for what is stored, as base64: 256 bits, which every provider of an `EncryptionConfiguration` takes.
///
/// # Errors
/// If the system gives no random numbers.
pub fn encryption_key() -> Result<String, PkiError> {
    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes).map_err(|_| PkiError::Random)?;
    Ok(base64(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_own_pem() {
        for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384] {
            let key = PrivateKey::generate(algorithm).unwrap();
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
            assert_eq!(PrivateKey::generate(algorithm).unwrap().algorithm(), Some(algorithm));
        }
    }

    #[test]
    fn nothing_of_a_key_is_in_its_debug_text_or_in_an_error() {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
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
