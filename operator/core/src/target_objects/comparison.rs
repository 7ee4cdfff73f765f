//! The comparison of a desired object with the observed one, which may have fields of other owners.
//!
//! Ownership follows the rules of server-side apply: in a list with map keys others may add items; any other list is
//! one value. Quantities are compared by amount, because the API server changes their format.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The lists with map keys in Keyplane's objects (`x-kubernetes-list-map-keys` in the Kubernetes API).
const LISTS_WITH_KEYS: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("env", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    // Ports of a container have the first key, ports of a Service the second.
    ("ports", &["containerPort", "port", "protocol"]),
];

/// Returns whether all desired labels or annotations exist.
pub(super) fn has_entries(
    found: Option<&BTreeMap<String, String>>,
    desired: Option<&BTreeMap<String, String>>,
) -> bool {
    desired.into_iter().flatten().all(|(key, value)| found.and_then(|found| found.get(key)) == Some(value))
}

/// Returns whether all desired fields exist.
pub(super) fn contains(found: &Value, desired: &Value) -> bool {
    match (found, desired) {
        (Value::Object(found), Value::Object(desired)) => contains_object(found, desired),
        (Value::Array(found), Value::Array(desired)) => {
            found.len() == desired.len() && found.iter().zip(desired).all(|(found, desired)| contains(found, desired))
        }
        // The API server returns an empty list as null.
        (Value::Null, Value::Array(desired)) => desired.is_empty(),
        (found, desired) => found == desired,
    }
}

fn contains_object(found: &Map<String, Value>, desired: &Map<String, Value>) -> bool {
    desired.iter().all(|(key, desired)| {
        let keys = LISTS_WITH_KEYS.iter().find(|(list, _)| list == key).map(|(_, keys)| *keys);
        match (found.get(key), desired, keys) {
            // The API server omits empty objects.
            (None, desired, _) => desired.as_object().is_some_and(Map::is_empty),
            (Some(Value::Array(found)), Value::Array(desired), Some(keys)) => contains_items(found, desired, keys),
            (Some(Value::Object(found)), Value::Object(desired), _)
                if ["limits", "requests"].contains(&key.as_str()) =>
            {
                desired.iter().all(|(name, desired)| found.get(name).is_some_and(|found| same_quantity(found, desired)))
            }
            (Some(found), desired, _) => contains(found, desired),
        }
    })
}

fn contains_items(found: &[Value], desired: &[Value], keys: &[&str]) -> bool {
    desired.iter().all(|desired| {
        let named = |found: &&Value| keys.iter().all(|key| found.get(key) == desired.get(key));
        found.iter().find(named).is_some_and(|found| contains(found, desired))
    })
}

fn same_quantity(found: &Value, desired: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(amount);
    match (amount(found), amount(desired)) {
        // Both are parsed from decimal text, so equal amounts differ at most by rounding.
        (Some(found), Some(desired)) => (found - desired).abs() <= desired.abs() * 1e-9,
        _ => found == desired,
    }
}

/// Parses a quantity such as `100m`, `0.5`, `1e3` or `170Mi`.
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
    fn accepts_items_of_others_only_in_lists_with_map_keys() {
        let desired = json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}], "args": ["x"]});
        let found = json!({"containers": [{"name": "sidecar"},
            {"name": "a", "image": "b", "env": [{"name": "Y"}, {"name": "X", "value": "1"}]}], "args": ["x"]});
        assert!(contains(&found, &desired));
        for (pointer, other) in [
            ("/containers/1/env/1/value", json!("2")),
            ("/containers/1/name", json!("b")),
            ("/args", json!(["x", "y"])),
        ] {
            let mut found = found.clone();
            *found.pointer_mut(pointer).unwrap() = other;
            assert!(!contains(&found, &desired), "{pointer}");
        }
    }

    #[test]
    fn compares_quantities_by_amount() {
        let same =
            |found: &str, desired: &str| contains(&json!({"limits": {"x": found}}), &json!({"limits": {"x": desired}}));
        for (found, desired) in [("1", "1000m"), ("500m", "0.5"), ("1Gi", "1024Mi"), ("1k", "1e3"), ("170Mi", "170Mi")]
        {
            assert!(same(found, desired), "{found} {desired}");
        }
        assert!(!same("1", "1001m") && !same("1G", "1Gi"));
    }

    #[test]
    fn distinguishes_ports_by_number_and_protocol() {
        let desired = json!({"ports": [{"port": 53, "protocol": "UDP", "name": "dns"}]});
        assert!(contains(
            &json!({"ports": [{"port": 53, "protocol": "TCP", "name": "x"}, {"port": 53, "protocol": "UDP", "name": "dns"}]}),
            &desired
        ));
        assert!(!contains(&json!({"ports": [{"port": 53, "protocol": "UDP", "name": "x"}]}), &desired));
    }
}
