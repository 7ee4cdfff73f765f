//! An authority as it lies in its Secret, with the one that replaces it or that it has replaced while it is rotated.

use k8s_openapi::api::core::v1::Secret;
use keyplane_crds::keys;
use kube::ResourceExt;

use super::PeerKeys;
use crate::inventory::Leaf;
use crate::objects;
use crate::pki::{Authority, CertificateFacts, ExtendedUsage, first_certificate};
use crate::rotation::revocation::revoked;
use crate::rotation::{Stage, State};

/// The keys of the Secret for the authorities above one and for the root, if it is not a root itself.
pub const ABOVE: (&str, &str) = ("chain.crt", "root.crt");
/// The key of the Secret for the new authority as the old one has signed it.
pub const CROSS: &str = "cross-signed.crt";

/// An authority, or the two of a rotation.
#[derive(Debug)]
pub struct AuthoritySet {
    signing: Authority,
    other: Option<Authority>,
    cross: Option<String>,
    state: Option<State>,
    revoked: Vec<String>,
}

impl AuthoritySet {
    /// Reads an authority's Secret.
    ///
    /// # Errors
    /// What can't be read, in words for a person.
    pub fn from_secret(name: &str, secret: &Secret) -> Result<Self, String> {
        let below = |authority: Authority, (above, root)| {
            let text = |key| objects::text(secret, key).map(str::to_owned);
            authority.below(text(above).unwrap_or_default(), text(root))
        };
        let signing = below(load(name, secret)?, ABOVE);
        let state =
            secret.annotations().get(keys::ROTATION_STATE_ANNOTATION).map(|text| State::parse(text)).transpose()?;
        let other = match PeerKeys::find(secret, state.as_ref())? {
            Some(PeerKeys { pair, above }) => {
                let text = |key| {
                    objects::text(secret, key)
                        .ok_or_else(|| format!("it is being rotated, and lacks {} or {}", pair.0, pair.1))
                };
                let (certificate, key) = (text(pair.0)?, text(pair.1)?);
                let what = format!("{name} ({})", pair.0);
                let other = Authority::load(&what, certificate, key).map_err(|error| error.to_string())?;
                Some(below(other, above))
            }
            None => None,
        };
        let cross = objects::text(secret, CROSS).map(str::to_owned);
        let revoked =
            secret.annotations().get(keys::REVOKED_CAS_ANNOTATION).map(|text| revoked(text)).unwrap_or_default();
        Ok(Self { signing, other, cross, state, revoked })
    }

    /// The one that the controller-manager signs with.
    #[must_use]
    pub fn signing(&self) -> &Authority {
        &self.signing
    }

    /// The other one of a rotation.
    #[must_use]
    pub fn other(&self) -> Option<&Authority> {
        self.other.as_ref()
    }

    /// How far its last rotation is.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The SHA-256 of those that were revoked, the last first.
    #[must_use]
    pub fn revoked(&self) -> &[String] {
        &self.revoked
    }

    /// Whether this one was revoked, as far as is remembered.
    #[must_use]
    pub fn has_revoked(&self, authority: &Authority) -> bool {
        let is_going = || {
            self.stage() == Some(Stage::Revoke)
                && self.other.iter().any(|other| authority.facts().is_for_key_of(other.facts()))
        };
        self.revoked.contains(&authority.facts().fingerprint()) || is_going()
    }

    /// The stage of the rotation that is under way.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.state.as_ref()?.stage
    }

    /// The one that is being replaced and the one that replaces it, while a rotation is under way.
    #[must_use]
    pub fn old_and_new(&self) -> Option<(&Authority, &Authority)> {
        let other = self.other.as_ref()?;
        Some(if self.stage()? < Stage::Signing { (&self.signing, other) } else { (other, &self.signing) })
    }

    /// Who signs certificates for servers, or for clients.
    #[must_use]
    pub fn issuer(&self, is_server: bool) -> &Authority {
        let Some((old, new)) = self.old_and_new() else { return &self.signing };
        let from = if is_server { Stage::Servers } else { Stage::Clients };
        if self.stage() >= Some(from) { new } else { old }
    }

    /// Who signs a leaf. etcd's members are servers and clients of one another with one certificate: servers.
    #[must_use]
    pub fn issuer_of(&self, leaf: &Leaf) -> &Authority {
        self.issuer(leaf.usages.contains(&ExtendedUsage::ServerAuth))
    }

    /// What is trusted, as PEM, for the file beside the key: the one that signs first, because kubeadm reads no more than
    /// that and wants it to fit the key.
    #[must_use]
    pub fn file(&self) -> String {
        self.both().map_or_else(|| self.signing.certificate_pem().to_owned(), |other| joined(&self.signing, other))
    }

    /// What is trusted, as PEM: the old one first for as long as there are two, so that a change of the signer changes
    /// nothing for who reads it only when it starts.
    #[must_use]
    pub fn bundle(&self) -> String {
        match (self.both(), self.old_and_new()) {
            (Some(_), Some((old, new))) => joined(old, new),
            _ => self.signing.certificate_pem().to_owned(),
        }
    }

    /// The other one, while it is trusted too.
    fn both(&self) -> Option<&Authority> {
        self.other.as_ref().filter(|_| self.stage().is_some_and(|stage| stage < Stage::Drop))
    }

    /// What is presented after a certificate: by a server, the authorities above it up to the root, for clients that trust
    /// the root alone; and the new authority as the old one has signed it, for those that trust the old one alone. Empty
    /// where there is nothing to bring along.
    #[must_use]
    pub fn chain(&self, leaf: &Leaf, certificate: &str) -> String {
        let all = || std::iter::once(&self.signing).chain(&self.other);
        let Ok(signed) = first_certificate("a leaf", certificate) else { return String::new() };
        let issuer = all().find(|authority| signed.is_signed_by(authority.facts()));
        let is_server = leaf.usages.contains(&ExtendedUsage::ServerAuth);
        let mut chain = issuer.filter(|_| is_server).map_or_else(String::new, Authority::chain);
        let cross = self.cross.as_deref().filter(|_| self.stage().is_some_and(|stage| stage < Stage::Drop));
        let parsed = cross.and_then(|cross| Some((cross, first_certificate("a cross certificate", cross).ok()?)));
        if let Some((cross, facts)) = parsed.filter(|(_, facts)| signed.is_signed_by(facts)) {
            chain.push_str(cross);
            let above = all().find(|authority| facts.is_signed_by(authority.facts()));
            chain.push_str(&above.filter(|_| is_server).map_or_else(String::new, Authority::chain));
        }
        chain
    }

    /// The roots above the authorities that are trusted, for clients that take nothing else; nothing if none is known.
    #[must_use]
    pub fn roots(&self) -> Option<String> {
        let all: Vec<_> = std::iter::once(&self.signing).chain(self.both()).collect();
        let root = |authority: &&Authority| authority.root().unwrap_or(authority.certificate_pem()).to_owned();
        let is_known = |authority: &&Authority| authority.root().is_some() || authority.facts().is_self_signed();
        let has_root = all.iter().any(|authority| authority.root().is_some());
        has_root.then(|| all.into_iter().filter(is_known).map(|authority| root(&authority)).collect())
    }

    /// Whether the new authority could be signed by the old one.
    #[must_use]
    pub fn is_cross_signed(&self) -> bool {
        // On its way back the old one is the new one, and needs nobody's signature.
        self.cross.is_some() && self.state.as_ref().is_some_and(|state| !state.rolling_back)
    }

    /// Whether one of them has signed it.
    #[must_use]
    pub fn has_signed(&self, certificate: &CertificateFacts) -> bool {
        let mut all = std::iter::once(&self.signing).chain(&self.other);
        all.any(|authority| certificate.is_signed_by(authority.facts()))
    }

    /// Whether a certificate is one of them, or was before it was revoked.
    #[must_use]
    pub fn is_one_of(&self, pem: &str) -> bool {
        let Ok(found) = first_certificate("an authority", pem) else { return false };
        if self.revoked.contains(&found.fingerprint()) {
            return true;
        }
        // The same key is the same authority, with another end.
        let all = std::iter::once(&self.signing).chain(&self.other);
        all.into_iter().any(|authority| found.is_for_key_of(authority.facts()))
    }
}

fn load(name: &str, secret: &Secret) -> Result<Authority, String> {
    let authority = match objects::text(secret, "tls.crt") {
        Some(certificate) if objects::is_signed_outside(secret) => Authority::signed_outside(name, certificate),
        _ => {
            let (certificate, key) = objects::key_pair(secret)?;
            Authority::load(name, certificate, key)
        }
    };
    authority.map_err(|error| error.to_string())
}

fn joined(first: &Authority, second: &Authority) -> String {
    let (first, second) = (first.certificate_pem(), second.certificate_pem());
    let separator = if first.ends_with('\n') { "" } else { "\n" };
    format!("{first}{separator}{second}")
}
