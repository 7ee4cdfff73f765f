//! An approved kubelet CSR that Keyplane forwards to an external signer.
//!
//! The signer of the controller-manager rejects a CSR that does not have the form of a kubelet CSR, whoever approved it
//! (`pkg/controller/certificates/signer`). Keyplane applies the same rule, because other approvers may exist in the
//! cluster.

use std::time::Duration;

use super::ExpectedCertificate;
use crate::approval::{Pkcs10, Signer, SigningRequest};
use crate::pki::{AlternativeName, ExtendedUsage, RequestFacts, Subject};

const NODES_GROUP: &str = "system:nodes";
const NODE_USER_PREFIX: &str = "system:node:";
/// The default of the controller-manager (`--cluster-signing-duration`).
const MAX_VALIDITY: Duration = Duration::from_hours(8760);

/// A kubelet CSR in the form in which an external signer receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletRequest {
    /// The PKCS #10 request as PEM, unchanged.
    pub request: String,
    /// The requested subject.
    pub subject: Subject,
    /// The requested extended key usage.
    pub usage: ExtendedUsage,
    /// The maximum validity.
    pub validity: Duration,
    names: Vec<AlternativeName>,
    subject_public_key_info: Vec<u8>,
}

impl KubeletRequest {
    /// Reads an approved CSR.
    ///
    /// # Errors
    /// Returns the reason why the CSR is not forwarded.
    pub fn read(request: &SigningRequest) -> Result<Self, &'static str> {
        let signer = request.signer().ok_or("spec.signerName is not a kubelet signer")?;
        let usage = match signer {
            Signer::KubeletServing => ExtendedUsage::ServerAuth,
            Signer::KubeletClient => ExtendedUsage::ClientAuth,
        };
        let pkcs10 = Pkcs10::parse(&request.request).map_err(|_| "spec.request is not a valid PKCS #10 request")?;
        if !pkcs10.signature_valid || !pkcs10.is_canonical() {
            return Err("spec.request has an invalid signature, or fields that a kubelet does not request");
        }
        let is_kubelet = pkcs10.identity().is_some_and(|(organization, name)| {
            organization == NODES_GROUP && name.strip_prefix(NODE_USER_PREFIX).is_some_and(|node| !node.is_empty())
        });
        if !is_kubelet {
            return Err("the subject is not that of a kubelet: O=system:nodes, CN=system:node:<name>");
        }
        let text =
            String::from_utf8(request.request.clone()).map_err(|_| "spec.request is not a valid PKCS #10 request")?;
        let facts = RequestFacts::from_pem(&text)
            .ok_or("a subject alternative name is neither a DNS name nor an IP address")?;
        if facts.alternative_names.is_empty() != (usage == ExtendedUsage::ClientAuth) {
            return Err(
                "a serving certificate needs subject alternative names, and a client certificate must have none",
            );
        }
        let own = if usage == ExtendedUsage::ServerAuth { "server auth" } else { "client auth" };
        let allowed = ["digital signature", "key encipherment", own];
        let usages: Vec<_> = request.usages.iter().map(String::as_str).collect();
        if !usages.contains(&own) || usages.iter().any(|usage| !allowed.contains(usage)) {
            return Err("spec.usages does not match spec.signerName");
        }
        let requested = request.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(Self {
            request: text,
            usage,
            validity: requested.map_or(MAX_VALIDITY, |seconds| Duration::from_secs(seconds).min(MAX_VALIDITY)),
            subject: facts.subject,
            names: facts.alternative_names,
            subject_public_key_info: facts.subject_public_key_info,
        })
    }

    /// Returns the expected certificate from a CA with this remaining validity.
    #[must_use]
    pub fn expected_certificate(&self, ca_remaining_validity: Duration) -> ExpectedCertificate<'_> {
        ExpectedCertificate {
            subject: &self.subject,
            alternative_names: &self.names,
            extended_usages: std::slice::from_ref(&self.usage),
            validity: self.validity.min(ca_remaining_validity),
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

    use crate::x509::request;

    fn read(signer: &str, subject: &[&str], names: &[&str], usages: &[&str]) -> Result<KubeletRequest, &'static str> {
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
    fn reads_kubelet_csrs_for_serving_and_client_certificates() {
        let serving = read(KUBELET_SERVING_SIGNER, KUBELET, &["w1", "10.0.0.9"], &["digital signature", "server auth"]);
        let serving = serving.unwrap();
        let expected = serving.expected_certificate(Duration::from_hours(1));
        assert_eq!(
            (expected.extended_usages, expected.validity),
            (&[ExtendedUsage::ServerAuth][..], Duration::from_hours(1))
        );
        assert_eq!(expected.alternative_names.len(), 2);
        let client = read(KUBELET_CLIENT_SIGNER, KUBELET, &[], &["digital signature", "client auth"]).unwrap();
        assert_eq!(client.expected_certificate(Duration::MAX).validity, Duration::from_hours(2));
    }

    #[test]
    fn rejects_approved_csr_that_is_not_a_kubelet_csr() {
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
            assert!(read(signer, subject, names, usages).is_err(), "{signer} {subject:?} {names:?} {usages:?}");
        }
    }
}
