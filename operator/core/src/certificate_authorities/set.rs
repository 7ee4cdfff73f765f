//! A CA in its Secret, with the second CA of a rotation.

use k8s_openapi::api::core::v1::Secret;
use keyplane_crds::keys;
use kube::ResourceExt;

use super::PeerKeys;
use crate::inventory::Leaf;
use crate::objects;
use crate::pki::{CertificateAuthority, CertificateFacts, ExtendedUsage, first_certificate};
use crate::rotation::revocation::revoked;
use crate::rotation::{Stage, State};

/// The Secret keys of the intermediate CAs and of the root, used only if the CA is not a root CA.
pub const CHAIN_KEYS: (&str, &str) = ("chain.crt", "root.crt");
/// The Secret key of the new CA, cross-signed by the old CA.
pub const CROSS_SIGNED_KEY: &str = "cross-signed.crt";

/// The signing CA, and the second CA of a rotation.
#[derive(Debug)]
pub struct CaSet {
    signing: CertificateAuthority,
    other: Option<CertificateAuthority>,
    cross: Option<String>,
    state: Option<State>,
    revoked: Vec<String>,
}

impl CaSet {
    /// Reads the Secret of a CA.
    ///
    /// # Errors
    /// Returns a message for the user if the Secret is incomplete or unreadable.
    pub fn from_secret(name: &str, secret: &Secret) -> Result<Self, String> {
        let with_chain = |ca: CertificateAuthority, (intermediates, root)| {
            let text = |key| objects::text(secret, key).map(str::to_owned);
            ca.with_chain(text(intermediates).unwrap_or_default(), text(root))
        };
        let signing = with_chain(load(name, secret)?, CHAIN_KEYS);
        let state =
            secret.annotations().get(keys::ROTATION_STATE_ANNOTATION).map(|text| State::parse(text)).transpose()?;
        let other = match PeerKeys::find(secret, state.as_ref())? {
            Some(PeerKeys { pair, chain }) => {
                let text = |key| {
                    objects::text(secret, key).ok_or_else(|| {
                        format!("rotation is in progress, but the Secret lacks {} or {}", pair.0, pair.1)
                    })
                };
                let (certificate, key) = (text(pair.0)?, text(pair.1)?);
                let what = format!("{name} ({})", pair.0);
                let other = CertificateAuthority::load(&what, certificate, key).map_err(|error| error.to_string())?;
                Some(with_chain(other, chain))
            }
            None => None,
        };
        let cross = objects::text(secret, CROSS_SIGNED_KEY).map(str::to_owned);
        let revoked =
            secret.annotations().get(keys::REVOKED_CAS_ANNOTATION).map(|text| revoked(text)).unwrap_or_default();
        Ok(Self { signing, other, cross, state, revoked })
    }

    /// Returns the signing CA, which the controller-manager uses too.
    #[must_use]
    pub fn signing(&self) -> &CertificateAuthority {
        &self.signing
    }

    /// Returns the second CA of a rotation.
    #[must_use]
    pub fn other(&self) -> Option<&CertificateAuthority> {
        self.other.as_ref()
    }

    /// Returns the state of the last rotation.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// Returns the SHA-256 fingerprints of the revoked CAs, the latest first.
    #[must_use]
    pub fn revoked(&self) -> &[String] {
        &self.revoked
    }

    /// Returns whether a CA is revoked. The Secret keeps a limited number of fingerprints.
    #[must_use]
    pub fn has_revoked(&self, ca: &CertificateAuthority) -> bool {
        let is_being_revoked = || {
            self.stage() == Some(Stage::Revoke)
                && self.other.iter().any(|other| ca.facts().is_for_key_of(other.facts()))
        };
        self.revoked.contains(&ca.facts().fingerprint()) || is_being_revoked()
    }

    /// Returns the stage of the rotation in progress.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.state.as_ref()?.stage
    }

    /// Returns the old and the new CA while a rotation is in progress.
    #[must_use]
    pub fn old_and_new(&self) -> Option<(&CertificateAuthority, &CertificateAuthority)> {
        let other = self.other.as_ref()?;
        Some(if self.stage()? < Stage::Signing { (&self.signing, other) } else { (other, &self.signing) })
    }

    /// Returns the CA that signs server certificates, or client certificates.
    #[must_use]
    pub fn issuer(&self, is_server: bool) -> &CertificateAuthority {
        let Some((old, new)) = self.old_and_new() else { return &self.signing };
        let from = if is_server { Stage::Servers } else { Stage::Clients };
        if self.stage() >= Some(from) { new } else { old }
    }

    /// Returns the CA that signs a leaf certificate. An etcd member uses one certificate as server and client, which
    /// counts as a server certificate.
    #[must_use]
    pub fn issuer_of(&self, leaf: &Leaf) -> &CertificateAuthority {
        self.issuer(leaf.usages.contains(&ExtendedUsage::ServerAuth))
    }

    /// Returns the trusted CAs as PEM for the file next to the key. The signing CA is first, because kubeadm reads only
    /// the first one and compares it with the key.
    #[must_use]
    pub fn file(&self) -> String {
        self.also_trusted()
            .map_or_else(|| self.signing.certificate_pem().to_owned(), |other| joined(&self.signing, other))
    }

    /// Returns the trusted CAs as PEM. The old CA is first during a rotation, so that the swap of the signing CA does
    /// not change the bundle. Some components read the bundle only at startup.
    #[must_use]
    pub fn bundle(&self) -> String {
        match (self.also_trusted(), self.old_and_new()) {
            (Some(_), Some((old, new))) => joined(old, new),
            _ => self.signing.certificate_pem().to_owned(),
        }
    }

    /// Returns the second CA while both CAs are trusted.
    fn also_trusted(&self) -> Option<&CertificateAuthority> {
        self.other.as_ref().filter(|_| self.stage().is_some_and(|stage| stage < Stage::Drop))
    }

    /// Returns the chain that is presented after a leaf certificate, which may be empty. A server presents the CAs up
    /// to the root, for clients that trust only the root. Servers and clients present the cross-signed new CA, for
    /// peers that trust only the old CA.
    #[must_use]
    pub fn chain(&self, leaf: &Leaf, certificate: &str) -> String {
        let all = || std::iter::once(&self.signing).chain(&self.other);
        let Ok(signed) = first_certificate("a leaf", certificate) else { return String::new() };
        let issuer = all().find(|ca| signed.is_signed_by(ca.facts()));
        let is_server = leaf.usages.contains(&ExtendedUsage::ServerAuth);
        let mut chain = issuer.filter(|_| is_server).map_or_else(String::new, CertificateAuthority::chain);
        let cross = self.cross.as_deref().filter(|_| self.stage().is_some_and(|stage| stage < Stage::Drop));
        let parsed = cross.and_then(|cross| Some((cross, first_certificate("a cross certificate", cross).ok()?)));
        if let Some((cross, facts)) = parsed.filter(|(_, facts)| signed.is_signed_by(facts)) {
            chain.push_str(cross);
            let above = all().find(|ca| facts.is_signed_by(ca.facts()));
            chain.push_str(&above.filter(|_| is_server).map_or_else(String::new, CertificateAuthority::chain));
        }
        chain
    }

    /// Returns the root CAs of the trusted CAs, for clients that accept only roots, or `None` if no root is known.
    #[must_use]
    pub fn roots(&self) -> Option<String> {
        let all: Vec<_> = std::iter::once(&self.signing).chain(self.also_trusted()).collect();
        let root = |ca: &&CertificateAuthority| ca.root().unwrap_or(ca.certificate_pem()).to_owned();
        let is_known = |ca: &&CertificateAuthority| ca.root().is_some() || ca.facts().is_self_signed();
        let has_root = all.iter().any(|ca| ca.root().is_some());
        has_root.then(|| all.into_iter().filter(is_known).map(|ca| root(&ca)).collect())
    }

    /// Returns whether the old CA has cross-signed the new CA.
    #[must_use]
    pub fn is_cross_signed(&self) -> bool {
        // In a rollback the old CA becomes the new one again and needs no cross-signing.
        self.cross.is_some() && self.state.as_ref().is_some_and(|state| !state.rolling_back)
    }

    /// Returns whether one of the CAs signed a certificate.
    #[must_use]
    pub fn has_signed(&self, certificate: &CertificateFacts) -> bool {
        let mut all = std::iter::once(&self.signing).chain(&self.other);
        all.any(|ca| certificate.is_signed_by(ca.facts()))
    }

    /// Returns whether a certificate belongs to one of the CAs, or to a revoked one.
    #[must_use]
    pub fn is_one_of(&self, pem: &str) -> bool {
        let Ok(found) = first_certificate("a CA", pem) else { return false };
        if self.revoked.contains(&found.fingerprint()) {
            return true;
        }
        // A certificate with the same key is a renewal of the same CA.
        let all = std::iter::once(&self.signing).chain(&self.other);
        all.into_iter().any(|ca| found.is_for_key_of(ca.facts()))
    }
}

fn load(name: &str, secret: &Secret) -> Result<CertificateAuthority, String> {
    let ca = match objects::text(secret, "tls.crt") {
        Some(certificate) if objects::is_external_ca(secret) => CertificateAuthority::external(name, certificate),
        _ => {
            let (certificate, key) = objects::key_pair(secret)?;
            CertificateAuthority::load(name, certificate, key)
        }
    };
    ca.map_err(|error| error.to_string())
}

fn joined(first: &CertificateAuthority, second: &CertificateAuthority) -> String {
    let (first, second) = (first.certificate_pem(), second.certificate_pem());
    let separator = if first.ends_with('\n') { "" } else { "\n" };
    format!("{first}{separator}{second}")
}
