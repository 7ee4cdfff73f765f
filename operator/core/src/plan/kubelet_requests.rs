//! Forwards approved CSRs of kubelets to an external signer, and returns the signed certificates to the target cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{keys, reasons};
use kube::ResourceExt;

use super::{Kind, Removal, pending_keys};
use crate::approval::SigningRequest;
use crate::external_signer::kubelet::KubeletRequest;
use crate::external_signer::request::{ANSWER_KEY, REQUEST_KEY, data};
use crate::external_signer::{Rejection, check};
use crate::model::Cluster;
use crate::observed::Observed;
use crate::pki::{CaName, CertificateFacts};

/// The steps for the CSRs of the kubelets of a target cluster.
#[derive(Debug, Default)]
pub struct ForwardingPlan {
    /// The ConfigMaps to write.
    pub published: Vec<ConfigMap>,
    /// The ConfigMaps that are no longer needed.
    pub withdrawn: Vec<Removal>,
    /// The CSRs in the target cluster that are signed, each with its certificate.
    pub answered: Vec<(SigningRequest, String)>,
    /// The ConfigMaps with rejected certificates, each with the reason.
    pub refused: Vec<(String, Rejection)>,
    /// The CSRs in the target cluster that are not forwarded, each with the reason.
    pub unfit: Vec<(String, &'static str)>,
}

/// Returns the name of the ConfigMap for a CSR in the target cluster.
#[must_use]
pub fn config_map_name(cluster: &str, request: &str) -> String {
    format!("{cluster}-kubelet-{request}")
}

/// Plans the steps. `approved` are the CSRs in the target cluster that are approved and have no certificate; `found`
/// are the existing ConfigMaps.
#[must_use]
pub fn plan_forwarding(
    cluster: &Cluster,
    approved: &BTreeMap<String, SigningRequest>,
    found: BTreeMap<String, ConfigMap>,
    ca: &CertificateFacts,
    now: Timestamp,
) -> ForwardingPlan {
    let observed = Observed { config_maps: found, ..Observed::default() };
    let mut forwarding = ForwardingPlan::default();
    let mut needed = vec![];
    for (name, request) in approved {
        let kubelet = match KubeletRequest::read(request) {
            Ok(kubelet) => kubelet,
            Err(why) => {
                forwarding.unfit.push((name.clone(), why));
                continue;
            }
        };
        let since = request.created.unwrap_or(now);
        let left = Duration::try_from(ca.not_after.duration_since(since)).unwrap_or_default();
        let expected = kubelet.expected_certificate(left);
        let config_map = config_map_name(&cluster.name, name);
        let description =
            format!("{} of {} in cluster {}", request.signer_name, kubelet.subject.common_name, cluster.name);
        let ours = data(&description, CaName::Cluster, &kubelet.request, &expected);
        let mut wanted = pending_keys::publish(cluster, &config_map, CaName::Cluster, ours, since, &observed);
        wanted.labels_mut().insert(keys::KUBELET_CSR_LABEL.to_owned(), label_value(name));
        let mut write = super::Plan::default();
        super::config_maps::plan_config_map(wanted, &observed, &mut write);
        forwarding.published.extend(write.steps.into_iter().filter_map(|step| match step {
            super::Step::ConfigMap(config_map) => Some(*config_map),
            _ => None,
        }));
        let there = observed.config_maps.get(&config_map).and_then(|found| found.data.as_ref());
        let answer = there
            .filter(|data| data.get(REQUEST_KEY) == Some(&kubelet.request))
            .and_then(|data| data.get(ANSWER_KEY))
            .filter(|answer| !answer.trim().is_empty());
        match answer.map(|answer| check(answer, &expected, ca, now)) {
            None => {}
            Some(Ok(certificate)) => forwarding.answered.push((request.clone(), certificate)),
            Some(Err(refusal)) => forwarding.refused.push((config_map.clone(), refusal)),
        }
        needed.push(config_map);
    }
    let settled = observed.config_maps.values().filter(|found| !needed.contains(&found.name_any()));
    forwarding.withdrawn = settled.map(removal).collect();
    forwarding
}

fn removal(found: &ConfigMap) -> Removal {
    let name = found.name_any();
    Removal {
        kind: Kind::ConfigMap,
        uid: found.uid(),
        resource_version: found.resource_version(),
        reason: reasons::REQUEST_SETTLED,
        note: format!("deleted ConfigMap {name}: the kubelet's CSR is signed, or no longer exists"),
        name,
    }
}

/// Returns the name as a label value, which has at most 63 characters. CSRs of kubelets have names of nine.
fn label_value(name: &str) -> String {
    name.chars().take(63).collect::<String>().trim_end_matches(['.', '-', '_']).to_owned()
}
