//! A kubelet's request that was approved, as it is handed on to a signer outside.
//!
//! The signer of the controller-manager refuses what is no kubelet's request, whoever has approved it
//! (`pkg/controller/certificates/signer`), and so does this: not everybody who may approve is Keyplane.

use std::time::Duration;

use super::Asked;
use crate::approval::{Pkcs10, Signer, SigningRequest};
use crate::pki::{AlternativeName, ExtendedUsage, RequestFacts, Subject};

/// The group of kubelets.
const NODES: &str = "system:nodes";
/// What a kubelet's name begins with.
const NODE: &str = "system:node:";
/// As long as the controller-manager signs for (`--cluster-signing-duration`).
const LONGEST: Duration = Duration::from_hours(8760);

/// What a signer outside is asked for in a kubelet's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletRequest {
    /// The request, as the kubelet wrote it.
    pub request: String,
    /// Whose certificate it is to be.
    pub subject: Subject,
    /// What it is to be for.
    pub usage: ExtendedUsage,
    /// How long it is to be valid at most.
    pub validity: Duration,
    names: Vec<AlternativeName>,
    subject_public_key_info: Vec<u8>,
}

impl KubeletRequest {
    /// Reads an approved request.
    ///
    /// # Errors
    /// Why it is not handed on.
    pub fn read(request: &SigningRequest) -> Result<Self, &'static str> {
        let signer = request.signer().ok_or("its signer is none of the kubelets'")?;
        let usage = match signer {
            Signer::KubeletServing => ExtendedUsage::ServerAuth,
            Signer::KubeletClient => ExtendedUsage::ClientAuth,
        };
        let pkcs10 = Pkcs10::parse(&request.request).map_err(|_| "it can't be read")?;
        if !pkcs10.signature_valid || !pkcs10.is_canonical() {
            return Err("it is not signed by its key, or has more in it than a kubelet asks for");
        }
        let is_kubelet = pkcs10.identity().is_some_and(|(organization, name)| {
            organization == NODES && name.strip_prefix(NODE).is_some_and(|node| !node.is_empty())
        });
        if !is_kubelet {
            return Err("its subject is no kubelet's: O=system:nodes, CN=system:node:<name>");
        }
        let text = String::from_utf8(request.request.clone()).map_err(|_| "it can't be read")?;
        let facts = RequestFacts::from_pem(&text).ok_or("it has names that are neither DNS names nor addresses")?;
        if facts.alternative_names.is_empty() != (usage == ExtendedUsage::ClientAuth) {
            return Err("a serving certificate has names, and a client's has none");
        }
        let own = if usage == ExtendedUsage::ServerAuth { "server auth" } else { "client auth" };
        let allowed = ["digital signature", "key encipherment", own];
        let usages: Vec<_> = request.usages.iter().map(String::as_str).collect();
        if !usages.contains(&own) || usages.iter().any(|usage| !allowed.contains(usage)) {
            return Err("its usages are not those of its signer");
        }
        let asked = request.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(Self {
            request: text,
            usage,
            validity: asked.map_or(LONGEST, |seconds| Duration::from_secs(seconds).min(LONGEST)),
            subject: facts.subject,
            names: facts.alternative_names,
            subject_public_key_info: facts.subject_public_key_info,
        })
    }

    /// What is asked for, of an authority that is valid for so long yet.
    #[must_use]
    pub fn asked(&self, authority_left: Duration) -> Asked<'_> {
        Asked {
            subject: &self.subject,
            alternative_names: &self.names,
            extended_usages: std::slice::from_ref(&self.usage),
            validity: self.validity.min(authority_left),
            subject_public_key_info: &self.subject_public_key_info,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::x509::generate;
    use keyplane_crds::KeyAlgorithm;

    use super::*;
    use crate::approval::{KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER};
    use crate::pki::PrivateKey;
    use crate::x509::request;

    fn asks(signer: &str, subject: &[&str], names: &[&str], usages: &[&str]) -> Result<KubeletRequest, &'static str> {
        let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
        let (common_name, organizations) = subject.split_last().unwrap();
        let organizations = organizations.iter().map(|name| (*name).to_owned()).collect();
        let subject = Subject { common_name: (*common_name).to_owned(), organizations };
        let names: Vec<_> = names.iter().map(|name| AlternativeName::parse(name)).collect();
        KubeletRequest::read(&SigningRequest {
            name: "csr-1".to_owned(),
            uid: "u".to_owned(),
            resource_version: "1".to_owned(),
            signer_name: signer.to_owned(),
            username: "system:node:w1".to_owned(),
            groups: vec![],
            usages: usages.iter().map(|usage| (*usage).to_owned()).collect(),
            request: request(&subject, &names, &key).unwrap().into_bytes(),
            expiration_seconds: Some(7_200),
            created: None,
            settled: true,
            approved: true,
        })
    }

    const KUBELET: &[&str] = &["system:nodes", "system:node:w1"];

    #[test]
    fn hands_on_what_kubelets_ask_for() {
        let serving = asks(KUBELET_SERVING_SIGNER, KUBELET, &["w1", "10.0.0.9"], &["digital signature", "server auth"]);
        let serving = serving.unwrap();
        let asked = serving.asked(Duration::from_hours(1));
        assert_eq!(
            (asked.extended_usages, asked.validity),
            (&[ExtendedUsage::ServerAuth][..], Duration::from_hours(1))
        );
        assert_eq!(asked.alternative_names.len(), 2);
        let client = asks(KUBELET_CLIENT_SIGNER, KUBELET, &[], &["digital signature", "client auth"]).unwrap();
        assert_eq!(client.asked(Duration::MAX).validity, Duration::from_hours(2));
    }

    #[test]
    fn refuses_what_is_no_kubelets_request_whoever_has_approved_it() {
        let client = &["digital signature", "client auth"];
        for (signer, subject, names, usages) in [
            (KUBELET_CLIENT_SIGNER, &["system:masters", "system:node:w1"][..], &[][..], &client[..]),
            (KUBELET_CLIENT_SIGNER, &["system:nodes", "kubernetes-admin"], &[], client),
            (KUBELET_CLIENT_SIGNER, &["system:nodes", "system:masters", "system:node:w1"], &[], client),
            (KUBELET_CLIENT_SIGNER, &["system:nodes", "system:node:"], &[], client),
            (KUBELET_CLIENT_SIGNER, KUBELET, &["w1"], client),
            (KUBELET_CLIENT_SIGNER, KUBELET, &[], &["server auth"]),
            (KUBELET_CLIENT_SIGNER, KUBELET, &[], &["client auth", "cert sign"]),
            (KUBELET_SERVING_SIGNER, KUBELET, &[], &["server auth"]),
            (KUBELET_SERVING_SIGNER, KUBELET, &["w1"], &["server auth", "client auth"]),
            ("kubernetes.io/kube-apiserver-client", KUBELET, &[], client),
        ] {
            assert!(asks(signer, subject, names, usages).is_err(), "{signer} {subject:?} {names:?} {usages:?}");
        }
    }
}
