//! Authorities of the user's own.

use std::collections::BTreeSet;

use keyplane_crds::{CertificateAuthorities, ClusterSpecSpec, GivenAuthority};

use super::{Cluster, FieldError};
use crate::pki::AuthorityName;

impl Cluster {
    /// The authorities of the cluster: an external etcd brings its own.
    pub fn authority_names(&self) -> impl Iterator<Item = AuthorityName> + use<> {
        let external = self.external_etcd().is_some();
        AuthorityName::ALL.into_iter().filter(move |name| !external || *name != AuthorityName::Etcd)
    }

    /// Takes up which authorities sign outside.
    #[must_use]
    pub fn with_signers_outside(mut self, signed_outside: BTreeSet<AuthorityName>) -> Self {
        self.signed_outside = signed_outside;
        self
    }

    /// The user's Secret with an authority of their own; nothing where Keyplane makes it.
    #[must_use]
    pub fn given_authority(&self, name: AuthorityName) -> Option<&str> {
        let given = of(self.spec.certificate_authorities.as_ref()?, name)?;
        Some(given.secret_ref.name.as_str())
    }
}

fn of(all: &CertificateAuthorities, name: AuthorityName) -> Option<&GivenAuthority> {
    match name {
        AuthorityName::Cluster => all.cluster.as_ref(),
        AuthorityName::Etcd => all.etcd.as_ref(),
        AuthorityName::FrontProxy => all.front_proxy.as_ref(),
    }
}

/// The field that names the Secret.
#[must_use]
pub fn given_authority_field(name: AuthorityName) -> &'static str {
    match name {
        AuthorityName::Cluster => "spec.certificateAuthorities.cluster.secretRef",
        AuthorityName::Etcd => "spec.certificateAuthorities.etcd.secretRef",
        AuthorityName::FrontProxy => "spec.certificateAuthorities.frontProxy.secretRef",
    }
}

/// References that can't be meant.
pub(super) fn refuse(cluster: &str, spec: &ClusterSpecSpec) -> Result<(), FieldError> {
    let Some(all) = &spec.certificate_authorities else { return Ok(()) };
    if all.etcd.is_some() && spec.etcd.external.is_some() {
        let message = "is for an etcd on the nodes; an external one has its owner's authority: leave it out, and give its \
                       certificates in spec.etcd.external.secretRef";
        return Err(FieldError::new("spec.certificateAuthorities.etcd", message));
    }
    let mut before: Vec<&str> = vec![];
    for name in AuthorityName::ALL {
        let Some(given) = of(all, name) else { continue };
        let secret = given.secret_ref.name.as_str();
        if before.contains(&secret) {
            let message = "cluster, etcd and frontProxy need an authority each: with one for two of them, who is let in by \
                           the one would be let in by the other; name three Secrets";
            return Err(FieldError::new("spec.certificateAuthorities", message));
        }
        let ours = AuthorityName::ALL.map(|name| format!("{cluster}-{}", name.secret_suffix()));
        if ours.iter().any(|ours| ours == secret) {
            let message = format!("{secret} is where Keyplane keeps its copy: give the Secret another name");
            return Err(FieldError::new(given_authority_field(name), message));
        }
        before.push(secret);
    }
    Ok(())
}
