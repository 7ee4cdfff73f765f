//! Whether an object in a target says all that it should, whatever others have added to it.
//!
//! What belongs to whom is what server-side apply makes of it: in a list whose items have keys, others may add items; any
//! other list is one value. A quantity is the same however it is written, as the API server writes it its own way.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The lists of the objects here whose items have keys (`x-kubernetes-list-map-keys` in the Kubernetes API).
const LISTS_WITH_KEYS: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("env", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    // A container's ports have the first, a Service's the second.
    ("ports", &["containerPort", "port", "protocol"]),
];

/// Whether every label or annotation that is wanted is there.
pub(super) fn has_entries(found: Option<&BTreeMap<String, String>>, wanted: Option<&BTreeMap<String, String>>) -> bool {
    wanted.into_iter().flatten().all(|(key, value)| found.and_then(|found| found.get(key)) == Some(value))
}

/// Whether every field that is wanted is there.
pub(super) fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => contains_object(found, wanted),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| contains(found, wanted))
        }
        // The API server reads an empty list back as null.
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (found, wanted) => found == wanted,
    }
}

fn contains_object(found: &Map<String, Value>, wanted: &Map<String, Value>) -> bool {
    wanted.iter().all(|(key, wanted)| {
        let keys = LISTS_WITH_KEYS.iter().find(|(list, _)| list == key).map(|(_, keys)| *keys);
        match (found.get(key), wanted, keys) {
            // The API server leaves out what is empty.
            (None, wanted, _) => wanted.as_object().is_some_and(Map::is_empty),
            (Some(Value::Array(found)), Value::Array(wanted), Some(keys)) => contains_items(found, wanted, keys),
            (Some(Value::Object(found)), Value::Object(wanted), _)
                if ["limits", "requests"].contains(&key.as_str()) =>
            {
                wanted.iter().all(|(name, wanted)| found.get(name).is_some_and(|found| same_quantity(found, wanted)))
            }
            (Some(found), wanted, _) => contains(found, wanted),
        }
    })
}

fn contains_items(found: &[Value], wanted: &[Value], keys: &[&str]) -> bool {
    wanted.iter().all(|wanted| {
        let named = |found: &&Value| keys.iter().all(|key| found.get(key) == wanted.get(key));
        found.iter().find(named).is_some_and(|found| contains(found, wanted))
    })
}

fn same_quantity(found: &Value, wanted: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(amount);
    match (amount(found), amount(wanted)) {
        // Both were read from decimal text: the same amount differs by rounding alone.
        (Some(found), Some(wanted)) => (found - wanted).abs() <= wanted.abs() * 1e-9,
        _ => found == wanted,
    }
}

/// The number behind `100m`, `0.5`, `1e3` or `170Mi`.
fn amount(text: &str) -> Option<f64> {
    const SUFFIXES: &[(&str, f64)] = &[
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|number| (number, *factor)))
        .unwrap_or((text, 1.0));
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_of_others_are_fine_where_items_have_keys_and_nowhere_else() {
        let wanted = json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}], "args": ["x"]});
        let found = json!({"containers": [{"name": "sidecar"},
            {"name": "a", "image": "b", "env": [{"name": "Y"}, {"name": "X", "value": "1"}]}], "args": ["x"]});
        assert!(contains(&found, &wanted));
        for (pointer, other) in [
            ("/containers/1/env/1/value", json!("2")),
            ("/containers/1/name", json!("b")),
            ("/args", json!(["x", "y"])),
        ] {
            let mut found = found.clone();
            *found.pointer_mut(pointer).unwrap() = other;
            assert!(!contains(&found, &wanted), "{pointer}");
        }
    }

    #[test]
    fn an_amount_is_the_same_however_it_is_written() {
        let same =
            |found: &str, wanted: &str| contains(&json!({"limits": {"x": found}}), &json!({"limits": {"x": wanted}}));
        for (found, wanted) in [("1", "1000m"), ("500m", "0.5"), ("1Gi", "1024Mi"), ("1k", "1e3"), ("170Mi", "170Mi")] {
            assert!(same(found, wanted), "{found} {wanted}");
        }
        assert!(!same("1", "1001m") && !same("1G", "1Gi"));
    }

    #[test]
    fn ports_are_told_apart_by_number_and_protocol() {
        let wanted = json!({"ports": [{"port": 53, "protocol": "UDP", "name": "dns"}]});
        assert!(contains(
            &json!({"ports": [{"port": 53, "protocol": "TCP", "name": "x"}, {"port": 53, "protocol": "UDP", "name": "dns"}]}),
            &wanted
        ));
        assert!(!contains(&json!({"ports": [{"port": 53, "protocol": "UDP", "name": "x"}]}), &wanted));
    }
}
