//! Deterministic YAML.

use serde::Serialize;
use serde_json::Value;

/// Renders a value as YAML. The keys of objects are sorted, so that equal values have equal text.
#[must_use]
pub fn write(value: &Value) -> String {
    // A JSON value always has a YAML form. The fallback is JSON, which is valid YAML too.
    serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// Renders an object of the Kubernetes API as YAML.
#[must_use]
pub fn write_object(object: &impl Serialize) -> String {
    // Types of the Kubernetes API always have a JSON form, because the keys of their maps are strings.
    write(&serde_json::to_value(object).unwrap_or_default())
}

/// Merges objects and replaces all other values, as in RFC 7386. Unlike RFC 7386, null stays null, which components
/// treat as not set.
pub fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strings_that_resemble_other_types_stay_strings() {
        let value = json!({"a": "true", "b": "10", "c": "*,bootstrapsigner", "d": "null", "e": "- x", "f": "",
            "g": "a: b", "h": "line\nline\n", "i": "0x1f", "j": "1e3", "k": ["~", "no", "2026-01-01"], "l": {}, "m": [],
            "n": "#c", "o": "'", "p": "\"", "q": "::1", "r": " x ", "s": "0123", "t": "%x", "u": "@x", "v": "y"});
        let read: Value = serde_saphyr::from_str(&write(&value)).unwrap();
        assert_eq!(read, value);
    }

    #[test]
    fn merge_replaces_one_value_and_keeps_other_fields() {
        let mut value = json!({"logging": {"verbosity": 0, "flushFrequency": 0}, "clusterDNS": ["a"]});
        merge(&mut value, &json!({"logging": {"verbosity": 4}, "clusterDNS": ["b", "c"], "maxPods": 50}));
        let merged = json!({"logging": {"verbosity": 4, "flushFrequency": 0}, "clusterDNS": ["b", "c"], "maxPods": 50});
        assert_eq!(value, merged);
    }
}
