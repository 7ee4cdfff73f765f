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
}
