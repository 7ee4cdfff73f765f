//! YAML, written the same way every time.

use serde::Serialize;
use serde_json::Value;

/// Writes a value. Objects' keys are sorted, so that the same value is the same text.
#[must_use]
pub fn write(value: &Value) -> String {
    // A JSON value always has a YAML form; JSON itself is the way out that is valid YAML too.
    serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// Writes an object of the Kubernetes API.
#[must_use]
pub fn write_object(object: &impl Serialize) -> String {
    // The types of the Kubernetes API always have a JSON form: their maps have text as keys.
    write(&serde_json::to_value(object).unwrap_or_default())
}

/// Objects are merged, everything else is replaced (RFC 7386, but null stays null: components read it as not set).
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
    fn text_that_looks_like_something_else_stays_text() {
        let value = json!({"a": "true", "b": "10", "c": "*,bootstrapsigner", "d": "null", "e": "- x", "f": "",
            "g": "a: b", "h": "line\nline\n", "i": "0x1f", "j": "1e3", "k": ["~", "no", "2026-01-01"], "l": {}, "m": [],
            "n": "#c", "o": "'", "p": "\"", "q": "::1", "r": " x ", "s": "0123", "t": "%x", "u": "@x", "v": "y"});
        let read: Value = serde_saphyr::from_str(&write(&value)).unwrap();
        assert_eq!(read, value);
    }

    #[test]
    fn a_users_setting_replaces_one_value_and_leaves_its_neighbours() {
        let mut value = json!({"logging": {"verbosity": 0, "flushFrequency": 0}, "clusterDNS": ["a"]});
        merge(&mut value, &json!({"logging": {"verbosity": 4}, "clusterDNS": ["b", "c"], "maxPods": 50}));
        let merged = json!({"logging": {"verbosity": 4, "flushFrequency": 0}, "clusterDNS": ["b", "c"], "maxPods": 50});
        assert_eq!(value, merged);
    }
}
