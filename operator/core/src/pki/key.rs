//! Private keys: parsed from and encoded as PEM, hidden from debug output.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine;
use keyplane_crds::KeyAlgorithm;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::PkiError;

/// A private key. The original PEM text is kept, so that a rewrite changes nothing.
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
    /// Parses a key in PKCS #8, PKCS #1 or SEC 1 form. `what` names the key in the error.
    ///
    /// # Errors
    /// If the text is not an RSA or ECDSA key. The error contains no part of the text.
    pub fn from_pem(what: &str, pem: &str) -> Result<Self, PkiError> {
        let error = || PkiError::NoPrivateKey { what: what.to_owned() };
        let pair = KeyPair::from_pem(pem).map_err(|_| error())?;
        // kubeadm reads only RSA and ECDSA keys (pkiutil.TryLoadPrivatePublicKeyFromDisk).
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

    /// Returns the key as PEM. Generated keys are PKCS #8, which openssl, Go and kubeadm read.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns the public key as PEM (`PUBLIC KEY`, `SubjectPublicKeyInfo`).
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        // rcgen writes lines with CRLF; Go, openssl and kubeadm write LF.
        self.pair.public_key_pem().replace("\r\n", "\n")
    }

    /// Returns the public key as DER (`SubjectPublicKeyInfo`).
    #[must_use]
    pub fn subject_public_key_info(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// Returns the key ID (`kid`) in service-account tokens: the SHA-256 of the public key in base64url, as in
    /// kube-apiserver (`pkg/serviceaccount/jwt.go`, `keyIDFromPublicKey`).
    #[must_use]
    pub fn token_key_id(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.subject_public_key_info());
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest.as_ref())
    }

    /// Returns the key algorithm, or `None` for an algorithm that Keyplane does not generate.
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

    /// Returns whether Keyplane can verify signatures of this key. Kubernetes supports P-521, and Keyplane does not.
    pub(super) fn is_verifiable(&self) -> bool {
        !self.pair.is_compatible(&rcgen::PKCS_ECDSA_P521_SHA512)
    }

    /// Returns the key for signing.
    #[must_use]
    pub fn signing_key(&self) -> &(impl SigningKey + use<>) {
        &self.pair
    }
}
