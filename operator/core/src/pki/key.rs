//! Private keys: read and written as PEM, never shown.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine;
use keyplane_crds::KeyAlgorithm;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::PkiError;

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

    /// The key, to sign with.
    pub fn signing_key(&self) -> &(impl SigningKey + use<>) {
        &self.pair
    }
}
