//! The service-account keys in their Secret: the signing key, and the public keys that verify tokens.

use k8s_openapi::api::core::v1::Secret;
use keyplane_crds::keys;
use kube::ResourceExt;

use super::PeerKeys;
use crate::objects;
use crate::pki::PrivateKey;
use crate::rotation::{Stage, State};

/// The key that signs service-account tokens, and the second key of a rotation.
#[derive(Debug)]
pub struct ServiceAccountKeys {
    signing: PrivateKey,
    public: String,
    other: Option<PrivateKey>,
    state: Option<State>,
}

impl ServiceAccountKeys {
    /// Reads the keys from their Secret.
    ///
    /// # Errors
    /// Returns a message for the user if the Secret is incomplete or unreadable.
    pub fn from_secret(name: &str, secret: &Secret) -> Result<Self, String> {
        let (public, key) = objects::key_pair(secret)?;
        let signing = PrivateKey::from_pem(name, key).map_err(|error| error.to_string())?;
        if !public.contains(signing.public_key_pem().trim()) {
            return Err("tls.crt does not contain the public key of tls.key".to_owned());
        }
        let state =
            secret.annotations().get(keys::ROTATION_STATE_ANNOTATION).map(|text| State::parse(text)).transpose()?;
        let other = match PeerKeys::find(secret, state.as_ref())? {
            Some(PeerKeys { pair: (_, key), .. }) => {
                let text = objects::text(secret, key)
                    .ok_or_else(|| format!("rotation is in progress, but the Secret lacks {key}"))?;
                Some(PrivateKey::from_pem(name, text).map_err(|error| error.to_string())?)
            }
            None => None,
        };
        Ok(Self { signing, public: public.to_owned(), other, state })
    }

    /// Returns the key that signs tokens.
    #[must_use]
    pub fn signing(&self) -> &PrivateKey {
        &self.signing
    }

    /// Returns the second key of a rotation.
    #[must_use]
    pub fn other(&self) -> Option<&PrivateKey> {
        self.other.as_ref()
    }

    /// Returns the public keys that verify tokens, as PEM.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Returns the state of the last rotation.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// Returns the old and the new key while a rotation is in progress.
    #[must_use]
    pub fn old_and_new(&self) -> Option<(&PrivateKey, &PrivateKey)> {
        let (other, state) = (self.other.as_ref()?, self.state.as_ref()?);
        // A rollback before the new key has signed a token only removes the new key.
        let is_signer_old = state.stage? < Stage::Signing;
        Some(if is_signer_old { (&self.signing, other) } else { (other, &self.signing) })
    }
}
