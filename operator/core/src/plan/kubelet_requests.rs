//! Approved requests of kubelets that a signer outside is to sign: what is published, and what is written back.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{keys, reasons};
use kube::ResourceExt;

use super::{Kind, Removal, pending};
use crate::approval::SigningRequest;
use crate::external_signer::kubelet::KubeletRequest;
use crate::external_signer::request::{ANSWER_KEY, REQUEST_KEY, data};
use crate::external_signer::{Refusal, check};
use crate::model::Cluster;
use crate::observed::Observed;
use crate::pki::AuthorityName;
use crate::pki::CertificateFacts;

/// What is to be done for the kubelets of a target.
#[derive(Debug, Default)]
pub struct Handing {
    /// ConfigMaps to be written.
    pub published: Vec<ConfigMap>,
    /// ConfigMaps that nobody needs any more.
    pub withdrawn: Vec<Removal>,
    /// Requests in the target that were answered, and the certificate of each.
    pub answered: Vec<(SigningRequest, String)>,
    /// ConfigMaps whose answers are not used, and why.
    pub refused: Vec<(String, Refusal)>,
    /// Requests in the target that are not handed on, and why.
    pub unfit: Vec<(String, &'static str)>,
}

/// The ConfigMap for a request in the target.
#[must_use]
pub fn config_map_name(cluster: &str, request: &str) -> String {
    format!("{cluster}-kubelet-{request}")
}

/// Says what to do. `approved` are the requests in the target that are approved and have no certificate; `found` are the
/// ConfigMaps that there are.
#[must_use]
pub fn hand_on(
    cluster: &Cluster,
    approved: &BTreeMap<String, SigningRequest>,
    found: BTreeMap<String, ConfigMap>,
    authority: &CertificateFacts,
    now: Timestamp,
) -> Handing {
    let observed = Observed { config_maps: found, ..Observed::default() };
    let mut handing = Handing::default();
    let mut needed = vec![];
    for (name, request) in approved {
        let kubelet = match KubeletRequest::read(request) {
            Ok(kubelet) => kubelet,
            Err(why) => {
                handing.unfit.push((name.clone(), why));
                continue;
            }
        };
        let since = request.created.unwrap_or(now);
        let left = Duration::try_from(authority.not_after.duration_since(since)).unwrap_or_default();
        let asked = kubelet.asked(left);
        let config_map = config_map_name(&cluster.name, name);
        let description =
            format!("{} of {} in cluster {}", request.signer_name, kubelet.subject.common_name, cluster.name);
        let ours = data(&description, AuthorityName::Cluster, &kubelet.request, &asked);
        let mut wanted = pending::publish(cluster, &config_map, AuthorityName::Cluster, ours, since, &observed);
        wanted.labels_mut().insert(keys::KUBELET_CSR_LABEL.to_owned(), label_value(name));
        let mut write = super::Plan::default();
        super::config_maps::plan_config_map(wanted, &observed, &mut write);
        handing.published.extend(write.steps.into_iter().filter_map(|step| match step {
            super::Step::ConfigMap(config_map) => Some(*config_map),
            _ => None,
        }));
        let there = observed.config_maps.get(&config_map).and_then(|found| found.data.as_ref());
        let answer = there
            .filter(|data| data.get(REQUEST_KEY) == Some(&kubelet.request))
            .and_then(|data| data.get(ANSWER_KEY))
            .filter(|answer| !answer.trim().is_empty());
        match answer.map(|answer| check(answer, &asked, authority, now)) {
            None => {}
            Some(Ok(certificate)) => handing.answered.push((request.clone(), certificate)),
            Some(Err(refusal)) => handing.refused.push((config_map.clone(), refusal)),
        }
        needed.push(config_map);
    }
    let settled = observed.config_maps.values().filter(|found| !needed.contains(&found.name_any()));
    handing.withdrawn = settled.map(removal).collect();
    handing
}

fn removal(found: &ConfigMap) -> Removal {
    let name = found.name_any();
    Removal {
        kind: Kind::ConfigMap,
        uid: found.uid(),
        resource_version: found.resource_version(),
        reason: reasons::REQUEST_SETTLED,
        note: format!("deleted ConfigMap {name}: the kubelet's request is answered, or gone"),
        name,
    }
}

/// A label has room for 63 characters; requests of kubelets have names of nine.
fn label_value(name: &str) -> String {
    name.chars().take(63).collect::<String>().trim_end_matches(['.', '-', '_']).to_owned()
}
