//! Compares a static pod, as its mirror pod in the target cluster shows it, with its manifest.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::model::Version;

/// The prefix of annotations that the kubelet adds to a mirror pod. They change with every start and do not come from
/// the manifest.
const KUBELETS_OWN: &str = "kubernetes.io/config.";

/// A static pod as its mirror pod shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticPod {
    /// Whether the pod is Ready and not terminating.
    pub ready: bool,
    /// The fields that come from the manifest: annotations, labels and the specification.
    content: Value,
}

impl From<&Pod> for StaticPod {
    fn from(pod: &Pod) -> Self {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.filter(|condition| condition.type_ == "Ready").any(|ready| ready.status == "True");
        let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
        annotations.retain(|key, _| !key.starts_with(KUBELETS_OWN));
        let content = json!({
            "metadata": {"annotations": annotations, "labels": pod.metadata.labels},
            "spec": pod.spec,
        });
        Self { ready: ready && pod.metadata.deletion_timestamp.is_none(), content }
    }
}

impl StaticPod {
    /// Returns whether the pod matches this manifest. The API server adds defaults, so the pod may have more fields.
    #[must_use]
    pub fn is_of(&self, manifest: &str) -> bool {
        let Ok(wanted) = serde_saphyr::from_str::<Value>(manifest) else { return false };
        let same = |pointer: &str| match wanted.pointer(pointer) {
            Some(wanted) => self.content.pointer(pointer).is_some_and(|found| covers(found, wanted)),
            None => true,
        };
        same("/metadata/annotations") && same("/metadata/labels") && same("/spec")
    }

    /// Returns the image of the pod.
    #[must_use]
    pub fn image(&self) -> &str {
        first_image(&self.content)
    }
}

/// Returns the image in a manifest; empty if there is none.
#[must_use]
pub fn image_of(manifest: &str) -> String {
    serde_saphyr::from_str::<Value>(manifest).map(|manifest| first_image(&manifest).to_owned()).unwrap_or_default()
}

/// Returns the Kubernetes version in an image's tag; `None` for etcd, which has its own versions, and for a bare
/// digest.
#[must_use]
pub fn version_of(image: &str) -> Option<Version> {
    Version::reported(tag_of(image)?)
}

/// Returns an image's tag.
#[must_use]
pub fn tag_of(image: &str) -> Option<&str> {
    let named = image.split('@').next().unwrap_or_default();
    named.rsplit('/').next()?.split_once(':').map(|(_, tag)| tag)
}

fn first_image(pod: &Value) -> &str {
    pod.pointer("/spec/containers/0/image").and_then(Value::as_str).unwrap_or_default()
}

/// Returns whether `found` has every wanted field, lists of the same length, and quantities of the same value: the API
/// server writes `1000m` as `1`.
fn covers(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            let quantities = matches!(key.as_str(), "requests" | "limits");
            found
                .get(key)
                .is_some_and(|found| if quantities { same_amounts(found, wanted) } else { covers(found, wanted) })
        }),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| covers(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}

fn same_amounts(found: &Value, wanted: &Value) -> bool {
    let (Some(found), Some(wanted)) = (found.as_object(), wanted.as_object()) else { return found == wanted };
    wanted.iter().all(|(resource, wanted)| {
        found.get(resource).is_some_and(|found| {
            let amounts = found.as_str().and_then(amount).zip(wanted.as_str().and_then(amount));
            amounts.map_or(found == wanted, |(found, wanted)| found == wanted)
        })
    })
}

/// Returns a quantity in billionths. Smaller fractions are rounded up, as in the API server.
fn amount(text: &str) -> Option<i128> {
    const NANO: i128 = 1_000_000_000;
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let (multiplier, divisor) = match suffix {
        "n" => (1, 1),
        "u" => (1_000, 1),
        "m" => (1_000_000, 1),
        "" => (NANO, 1),
        "k" => (NANO * 1_000, 1),
        "M" => (NANO * 1_000_000, 1),
        "G" => (NANO * 1_000_000_000, 1),
        "T" => (NANO * 1_000_000_000_000, 1),
        "P" => (NANO * 1_000_000_000_000_000, 1),
        "E" => (NANO * 1_000_000_000_000_000_000, 1),
        "Ki" => (NANO << 10, 1),
        "Mi" => (NANO << 20, 1),
        "Gi" => (NANO << 30, 1),
        "Ti" => (NANO << 40, 1),
        "Pi" => (NANO << 50, 1),
        "Ei" => (NANO << 60, 1),
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (NANO, power) } else { (NANO.checked_mul(power)?, 1) }
        }
    };
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(divisor)?;
    let amount = digits.checked_mul(multiplier)?;
    Some(amount / divisor + i128::from(amount % divisor != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(value: Value) -> StaticPod {
        StaticPod::from(&serde_json::from_value::<Pod>(value).unwrap())
    }

    const MANIFEST: &str = "
metadata: {annotations: {kubeadm.kubernetes.io/x: some}, labels: {tier: control-plane}}
spec:
  containers:
  - {name: etcd, image: 'r.io:5000/etcd:3.7.0-0', command: [etcd, --a=b], resources: {requests: {cpu: 1000m, memory: 0.5Gi}}}
";

    fn mirror() -> Value {
        json!({
            "metadata": {
                "annotations": {"kubeadm.kubernetes.io/x": "some", "kubernetes.io/config.hash": "0"},
                "labels": {"tier": "control-plane"},
            },
            "spec": {"nodeName": "cp1", "tolerations": [{"operator": "Exists"}], "containers": [{
                "name": "etcd", "image": "r.io:5000/etcd:3.7.0-0", "command": ["etcd", "--a=b"],
                "imagePullPolicy": "IfNotPresent", "resources": {"requests": {"cpu": "1", "memory": "512Mi"}},
            }]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    #[test]
    fn defaults_and_equal_quantities_match_the_manifest() {
        let pod = pod(mirror());
        assert!(pod.ready && pod.is_of(MANIFEST));
        assert_eq!((pod.image(), image_of(MANIFEST).as_str()), ("r.io:5000/etcd:3.7.0-0", "r.io:5000/etcd:3.7.0-0"));
    }

    #[test]
    fn changed_flag_image_annotation_or_quantity_does_not_match() {
        for (pointer, value) in [
            ("/spec/containers/0/command/1", json!("--a=c")),
            ("/spec/containers/0/command", json!(["etcd", "--a=b", "--c=d"])),
            ("/spec/containers/0/image", json!("r.io:5000/etcd:3.7.1-0")),
            ("/spec/containers/0/resources/requests/cpu", json!("1100m")),
            ("/metadata/annotations/kubeadm.kubernetes.io~1x", json!("other")),
        ] {
            let mut other = mirror();
            *other.pointer_mut(pointer).unwrap() = value;
            assert!(!pod(other).is_of(MANIFEST), "{pointer}");
        }
    }

    #[test]
    fn terminating_pod_is_not_ready() {
        let mut ending = mirror();
        ending["metadata"]["deletionTimestamp"] = json!("2026-11-23T12:00:00Z");
        assert!(!pod(ending).ready);
    }

    #[test]
    fn reads_the_version_from_the_tag_only() {
        let version = |image| version_of(image).map(|version| version.to_string());
        assert_eq!(version("registry.k8s.io/kube-apiserver:v1.37.2").as_deref(), Some("v1.37.2"));
        assert_eq!(version("r:5000/kube-apiserver:v1.37.2@sha256:00").as_deref(), Some("v1.37.2"));
        for none in ["r:5000/kube-apiserver", "registry.k8s.io/etcd:3.7.0-0", "a@sha256:00", ""] {
            assert_eq!(version(none), None, "{none}");
        }
    }

    #[test]
    fn quantities_equal_those_of_the_api_server() {
        for (a, b) in
            [("1", "1000m"), ("1Gi", "1024Mi"), ("1.5", "1500m"), ("2e3", "2k"), ("1e-3", "1m"), (".5", "500m")]
        {
            assert_eq!(amount(a), amount(b), "{a} {b}");
            assert!(amount(a).is_some());
        }
        assert_ne!(amount("1G"), amount("1Gi"));
        assert_eq!(amount("much"), None);
    }
}
