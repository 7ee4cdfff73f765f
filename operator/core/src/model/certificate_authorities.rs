//! User-provided CAs and external CAs of a cluster.

use std::collections::BTreeSet;

use keyplane_crds::{CertificateAuthorities, ClusterSpecSpec, UserProvidedCa};

use super::{Cluster, FieldError};
use crate::pki::CaName;

impl Cluster {
    /// The CAs of the cluster. With an external etcd there is no etcd CA: the external etcd has its own.
    pub fn ca_names(&self) -> impl Iterator<Item = CaName> + use<> {
        let external = self.external_etcd().is_some();
        CaName::ALL.into_iter().filter(move |name| !external || *name != CaName::Etcd)
    }

    /// Sets the external CAs: those whose keys Keyplane does not hold.
    #[must_use]
    pub fn with_external_cas(mut self, external_cas: BTreeSet<CaName>) -> Self {
        self.external_cas = external_cas;
        self
    }

    /// The name of the Secret with the user-provided CA. `None` for a CA that Keyplane generates.
    #[must_use]
    pub fn user_provided_ca(&self, name: CaName) -> Option<&str> {
        let provided = of(self.spec.certificate_authorities.as_ref()?, name)?;
        Some(provided.secret_ref.name.as_str())
    }
}

fn of(all: &CertificateAuthorities, name: CaName) -> Option<&UserProvidedCa> {
    match name {
        CaName::Cluster => all.cluster.as_ref(),
        CaName::Etcd => all.etcd.as_ref(),
        CaName::FrontProxy => all.front_proxy.as_ref(),
    }
}

/// The path of the field that references the Secret of a user-provided CA.
#[must_use]
pub fn user_provided_ca_field(name: CaName) -> &'static str {
    match name {
        CaName::Cluster => "spec.certificateAuthorities.cluster.secretRef",
        CaName::Etcd => "spec.certificateAuthorities.etcd.secretRef",
        CaName::FrontProxy => "spec.certificateAuthorities.frontProxy.secretRef",
    }
}

/// Refuses references to user-provided CAs that can't work.
pub(super) fn refuse(cluster: &str, spec: &ClusterSpecSpec) -> Result<(), FieldError> {
    let Some(all) = &spec.certificate_authorities else { return Ok(()) };
    if all.etcd.is_some() && spec.etcd.external.is_some() {
        let message = "is for etcd members on the control-plane nodes, but spec.etcd.external has a CA of its own: leave it \
                       out, and write its certificates in the Secret of spec.etcd.external.secretRef";
        return Err(FieldError::new("spec.certificateAuthorities.etcd", message));
    }
    let mut secrets: Vec<&str> = vec![];
    for name in CaName::ALL {
        let Some(provided) = of(all, name) else { continue };
        let secret = provided.secret_ref.name.as_str();
        if secrets.contains(&secret) {
            let message = "cluster, etcd and frontProxy must have different CAs: with one CA for two of them, the clients of \
                           one could authenticate to the other; name three Secrets";
            return Err(FieldError::new("spec.certificateAuthorities", message));
        }
        let ours = CaName::ALL.map(|name| format!("{cluster}-{}", name.secret_suffix()));
        if ours.iter().any(|ours| ours == secret) {
            let message = format!("{secret} is the Secret of Keyplane's copy: give your Secret another name");
            return Err(FieldError::new(user_provided_ca_field(name), message));
        }
        secrets.push(secret);
    }
    Ok(())
}
