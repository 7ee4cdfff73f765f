//! Formats the list of certificates.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::CertificateStatus;
use serde::Serialize;

/// A cluster and its certificates.
#[derive(Debug, Serialize)]
pub(super) struct Cluster {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) certificates: Vec<Row>,
    /// The reason why no certificate is listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum State {
    Valid,
    RenewalDue,
    Expired,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    #[serde(flatten)]
    certificate: CertificateStatus,
    state: State,
}

impl Row {
    pub(super) fn of(certificate: &CertificateStatus, now: Timestamp) -> Self {
        let state = if certificate.not_after.0 <= now {
            State::Expired
        } else if certificate.renewal_time.0 <= now {
            State::RenewalDue
        } else {
            State::Valid
        };
        Self { certificate: certificate.clone(), state }
    }

    /// Whether the certificate is past its renewal time.
    pub(super) fn is_due(&self) -> bool {
        self.state != State::Valid
    }

    fn is_ca(&self) -> bool {
        self.certificate.name == self.certificate.issuer
    }
}

/// Formats kubeadm's two tables, certificates and then CAs, with the cluster and the node before each row.
pub(super) fn table(clusters: &[Cluster], all_namespaces: bool, now: Timestamp) -> String {
    let place = |cluster: &Cluster| {
        if all_namespaces { format!("{}/{}", cluster.namespace, cluster.name) } else { cluster.name.clone() }
    };
    let time = |row: &Row| {
        let expiry = row.certificate.not_after.0;
        // As kubeadm prints it, `metav1.Time` in "Jan 02, 2006 15:04 MST".
        [expiry.strftime("%b %d, %Y %H:%M UTC").to_string(), residual(expiry.duration_since(now)), state(row)]
    };
    let head = ["CLUSTER", "NODE", "CERTIFICATE", "EXPIRES", "RESIDUAL TIME", "STATE", "CERTIFICATE AUTHORITY"];
    let mut leaves = vec![head.map(str::to_owned)];
    let head = ["CLUSTER", "CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "STATE"];
    let mut cas = vec![head.map(str::to_owned)];
    for cluster in clusters {
        for row in &cluster.certificates {
            let [expires, left, state] = time(row);
            let name = row.certificate.name.clone();
            if row.is_ca() {
                cas.push([place(cluster), name, expires, left, state]);
            } else {
                let node = row.certificate.node.clone().unwrap_or_else(|| "-".to_owned());
                leaves.push([place(cluster), node, name, expires, left, state, row.certificate.issuer.clone()]);
            }
        }
    }
    let problems = clusters.iter().filter_map(|cluster| {
        let problem = cluster.problem.as_ref()?;
        Some(format!("\nClusterSpec {}/{} {problem}\n", cluster.namespace, cluster.name))
    });
    format!("{}\n{}{}", aligned(&leaves), aligned(&cas), problems.collect::<String>())
}

fn state(row: &Row) -> String {
    match row.state {
        State::Valid => "valid".to_owned(),
        State::RenewalDue => "renewal due".to_owned(),
        State::Expired => "expired".to_owned(),
    }
}

/// Shortens a duration as Kubernetes does (`k8s.io/apimachinery/pkg/util/duration`, `ShortHumanDuration`).
fn residual(left: SignedDuration) -> String {
    let seconds = left.as_secs();
    match seconds {
        ..0 => "<invalid>".to_owned(),
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        86_400..31_536_000 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
    let lines = rows.iter().map(|row| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("   ").trim_end())
    });
    lines.collect()
}

/// Formats a JSON object with the list `clusters`.
pub(super) fn json(clusters: &[Cluster]) -> String {
    format!("{:#}\n", serde_json::json!({ "clusters": clusters }))
}

/// Formats the same object as YAML.
pub(super) fn yaml(clusters: &[Cluster]) -> String {
    keyplane_core::yaml::write(&serde_json::json!({ "clusters": clusters }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn clusters() -> Vec<Cluster> {
        let row = |name: &str, node: Option<&str>, issuer: &str, end: &str, renewal: &str| {
            let mut written =
                json!({"name": name, "issuer": issuer, "serial": "1f", "notAfter": end, "renewalTime": renewal});
            if let Some(node) = node {
                written["node"] = json!(node);
            }
            Row::of(&serde_json::from_value(written).unwrap(), now())
        };
        let certificates = vec![
            row("ca", None, "ca", "2036-11-20T12:00:00Z", "2033-11-20T12:00:00Z"),
            row("apiserver", Some("cp1"), "ca", "2027-11-23T12:00:00Z", "2027-08-05T12:00:00Z"),
            row("etcd-peer", Some("cp1"), "etcd-ca", "2026-12-23T12:00:00Z", "2026-11-20T12:00:00Z"),
            row("kubeconfig", None, "ca", "2026-11-23T11:59:59Z", "2026-10-20T12:00:00Z"),
        ];
        let empty = Cluster {
            namespace: "b".to_owned(),
            name: "new".to_owned(),
            certificates: vec![],
            problem: Some("has no certificates yet".to_owned()),
        };
        vec![Cluster { namespace: "a".to_owned(), name: "demo".to_owned(), certificates, problem: None }, empty]
    }

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn tables_are_those_of_kubeadm_with_cluster_and_node() {
        let expected = "\
CLUSTER   NODE   CERTIFICATE   EXPIRES                  RESIDUAL TIME   STATE         CERTIFICATE AUTHORITY
a/demo    cp1    apiserver     Nov 23, 2027 12:00 UTC   1y              valid         ca
a/demo    cp1    etcd-peer     Dec 23, 2026 12:00 UTC   30d             renewal due   etcd-ca
a/demo    -      kubeconfig    Nov 23, 2026 11:59 UTC   <invalid>       expired       ca

CLUSTER   CERTIFICATE AUTHORITY   EXPIRES                  RESIDUAL TIME   STATE
a/demo    ca                      Nov 20, 2036 12:00 UTC   10y             valid

ClusterSpec b/new has no certificates yet
";
        assert_eq!(table(&clusters(), true, now()), expected);
    }

    #[test]
    fn certificates_past_renewal_time_or_expiry_are_due() {
        let due: Vec<_> = clusters()[0].certificates.iter().map(Row::is_due).collect();
        assert_eq!(due, [false, false, true, true]);
    }

    #[test]
    fn json_has_states_and_times() {
        let answer: serde_json::Value = serde_json::from_str(&json(&clusters())).unwrap();
        let peer = &answer["clusters"][0]["certificates"][2];
        assert_eq!((&peer["state"], &peer["notAfter"]), (&json!("RenewalDue"), &json!("2026-12-23T12:00:00Z")));
        assert_eq!(answer["clusters"][1]["problem"], json!("has no certificates yet"));
    }
}
