//! The tables of the documentation match those of the code.

use keyplane_core::approval::{CLIENT_RULES, Rule, SERVING_RULES};
use keyplane_core::rotation::reload::{ReloadMode, Row, TABLE};
use keyplane_crds::keys::{KEYS, Key};
use keyplane_crds::reasons::{REASONS, REQUEST_REASONS, Reason};
use keyplane_crds::{CertificatePolicy, CertificatePolicyCondition, ClusterCondition, NodePoolCondition};
use kube::CustomResourceExt;
use serde_json::Value;

const CSR_APPROVER: &str = include_str!("../../docs/csr-approver.md");
const CERTIFICATES: &str = include_str!("../../docs/certificates.md");
const KEYS_PAGE: &str = include_str!("../../docs/reference/labels-and-annotations.md");
const CONDITIONS_PAGE: &str = include_str!("../../docs/reference/conditions-and-events.md");

/// The rows of the table whose header starts with `head`, cell by cell.
fn table(page: &str, head: &str) -> Vec<Vec<String>> {
    let lines = page.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The section of a page below a heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let from = page.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_default();
    from.split("\n## ").next().unwrap_or_default()
}

#[test]
fn reference_lists_every_label_annotation_and_finalizer() {
    let mut documented = vec![];
    for heading in KEYS_PAGE.lines().filter_map(|line| line.strip_prefix("## ")) {
        for row in table(section(KEYS_PAGE, heading), "| Key | Kind | Set by | Purpose |") {
            documented.push([vec![heading.to_owned()], row].concat());
        }
    }
    let row = |key: &Key| {
        let name = format!("`{}`", key.name);
        [key.on, &name, key.kind.name(), key.writer, key.purpose].map(str::to_owned).to_vec()
    };
    assert_eq!(documented, KEYS.iter().map(row).collect::<Vec<_>>());
}

#[test]
fn reference_lists_every_condition() {
    let names = |heading: &str, head: &str| {
        let rows = table(section(CONDITIONS_PAGE, heading), head);
        rows.into_iter().map(|row| row[0].trim_matches('`').to_owned()).collect::<Vec<_>>()
    };
    let of_clusters = names("ClusterSpec", "| Condition | Ready depends on it | True means |");
    assert_eq!(of_clusters, ClusterCondition::ALL.map(ClusterCondition::name));
    assert_eq!(names("NodePool", "| Condition | True means |"), NodePoolCondition::ALL.map(NodePoolCondition::name));
    let of_policies = names("CertificatePolicy", "| Condition | True means |");
    assert_eq!(of_policies, CertificatePolicyCondition::ALL.map(CertificatePolicyCondition::name));
}

#[test]
fn reference_lists_every_reason() {
    for (reasons, head) in
        [(REASONS, "| Reason | Condition | Meaning |"), (REQUEST_REASONS, "| Reason | Verdict | Meaning |")]
    {
        let row =
            |reason: &Reason| vec![format!("`{}`", reason.name), reason.on.to_owned(), reason.meaning().to_owned()];
        let mut rows: Vec<_> = reasons.iter().map(row).collect();
        rows.sort();
        assert_eq!(table(CONDITIONS_PAGE, head), rows);
    }
}

#[test]
fn every_approval_rule_is_documented_in_order() {
    let rows = table(CSR_APPROVER, "| Rule | Serving | Client |");
    for (column, rules) in [(1, SERVING_RULES), (2, CLIENT_RULES)] {
        let documented: Vec<_> = rows.iter().filter(|row| row[column] == "yes").map(|row| row[0].as_str()).collect();
        let expected: Vec<_> = rules.iter().map(|Rule { name, .. }| format!("`{name}`")).collect();
        assert_eq!(documented, expected);
    }
    assert!(rows.iter().all(|row| row[1..3].contains(&"yes".to_owned())), "a rule that no signer uses");
}

#[test]
fn every_approval_policy_field_is_documented_with_its_default() {
    let definition = serde_json::to_value(CertificatePolicy::crd()).unwrap();
    let spec = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
    let mut expected = vec![];
    for part in ["kubeletServing", "kubeletClient", "signingRequests"] {
        for (field, schema) in spec[part]["properties"].as_object().unwrap() {
            let word = |value: &Value| format!("`{}`", value.as_str().map_or(value.to_string(), str::to_owned));
            let default = match &schema["default"] {
                Value::Null => String::new(),
                Value::Array(values) => values.iter().map(word).collect::<Vec<_>>().join(", "),
                value => word(value),
            };
            expected.push((format!("`{part}.{field}`"), default));
        }
    }
    let mut documented: Vec<_> =
        table(CSR_APPROVER, "| Field | Default |").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    expected.sort();
    documented.sort();
    assert_eq!(documented, expected);
}

#[test]
fn reload_behavior_of_every_file_is_documented() {
    let words = |reload| match reload {
        ReloadMode::Reload(time) if time.as_secs() == 60 => "within a minute".to_owned(),
        ReloadMode::Reload(time) => format!("within {} minutes", time.as_secs() / 60),
        ReloadMode::NextHandshake => "for the next connection".to_owned(),
        ReloadMode::Restart => "when it starts".to_owned(),
    };
    let row = |row: &Row| vec![format!("`{}`", row.component), format!("`{}`", row.file), words(row.reload)];
    let expected: Vec<_> = TABLE.iter().map(row).collect();
    assert_eq!(table(CERTIFICATES, "| Component | File |"), expected);
}
