//! The keys of service-account tokens as they lie in their Secret: the one that signs, and those that verify.

use k8s_openapi::api::core::v1::Secret;
use keyplane_crds::keys;
use kube::ResourceExt;

use super::PeerKeys;
use crate::objects;
use crate::pki::PrivateKey;
use crate::rotation::{Stage, State};

/// The key that signs service-account tokens, or the two of a rotation.
#[derive(Debug)]
pub struct ServiceAccountKeys {
    signing: PrivateKey,
    public: String,
    other: Option<PrivateKey>,
    state: Option<State>,
}

impl ServiceAccountKeys {
    /// Reads their Secret.
    ///
    /// # Errors
    /// What can't be read, in words for a person.
    pub fn from_secret(name: &str, secret: &Secret) -> Result<Self, String> {
        let (public, key) = objects::key_pair(secret)?;
        let signing = PrivateKey::from_pem(name, key).map_err(|error| error.to_string())?;
        if !public.contains(signing.public_key_pem().trim()) {
            return Err("tls.crt does not hold the public key of tls.key".to_owned());
        }
        let state =
            secret.annotations().get(keys::ROTATION_STATE_ANNOTATION).map(|text| State::parse(text)).transpose()?;
        let other = match PeerKeys::find(secret, state.as_ref())? {
            Some(PeerKeys { pair: (_, key), .. }) => {
                let text = objects::text(secret, key).ok_or_else(|| format!("it is being rotated, and lacks {key}"))?;
                Some(PrivateKey::from_pem(name, text).map_err(|error| error.to_string())?)
            }
            None => None,
        };
        Ok(Self { signing, public: public.to_owned(), other, state })
    }

    /// The one that signs.
    #[must_use]
    pub fn signing(&self) -> &PrivateKey {
        &self.signing
    }

    /// The other one of a rotation.
    #[must_use]
    pub fn other(&self) -> Option<&PrivateKey> {
        self.other.as_ref()
    }

    /// The public keys that tokens are verified with, as PEM.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// How far its last rotation is.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The one that is being replaced and the one that replaces it, while a rotation is under way.
    #[must_use]
    pub fn old_and_new(&self) -> Option<(&PrivateKey, &PrivateKey)> {
        let (other, state) = (self.other.as_ref()?, self.state.as_ref()?);
        // A rotation that is taken back before anything was signed with the new key only takes that one away again.
        let is_signer_old = state.stage? < Stage::Signing;
        Some(if is_signer_old { (&self.signing, other) } else { (other, &self.signing) })
    }
}
