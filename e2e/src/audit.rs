//! The API server's audit log, out of which tests count who wrote what.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Every request once, when it is answered, without bodies: those hold keys.
pub(crate) const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
";

/// An answered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asked.
    pub user: String,
    /// Kubernetes' verb, such as `list` or `patch`.
    pub verb: String,
    /// The API group, empty for the core and where the path is no resource.
    pub group: String,
    /// The resource, with its subresource after a slash; empty where the path is none.
    pub resource: String,
    /// The namespace, empty where there is none.
    pub namespace: String,
    /// The object's name, empty where there is none.
    pub name: String,
    /// The status code of the answer.
    pub code: u64,
}

impl Request {
    /// Whether it changed something, or tried to.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }

    fn parse(line: &str) -> Result<Self> {
        let event: Value = serde_json::from_str(line).context("the audit log holds something else than JSON")?;
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let resource = match object["subresource"].as_str() {
            Some(subresource) => format!("{}/{subresource}", word(&object["resource"])),
            None => word(&object["resource"]),
        };
        Ok(Self {
            user: word(&event["user"]["username"]),
            verb: word(&event["verb"]),
            group: word(&object["apiGroup"]),
            resource,
            namespace: word(&object["namespace"]),
            name: word(&object["name"]),
            code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
        })
    }
}

/// Reads a whole log; one that isn't there yet is empty.
pub(crate) fn read(path: &Path) -> Result<Vec<Request>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    // The last line may be in the middle of being written.
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    whole.lines().map(Request::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"verb":"patch","user":{"username":"keyplane"},"responseStatus":{"code":200},
        "objectRef":{"apiGroup":"keyplane.io","resource":"clusterspecs","subresource":"status","namespace":"default","name":"demo"}}"#;

    #[test]
    fn a_request_is_read_from_its_line() {
        let request = Request::parse(LINE).unwrap();
        assert_eq!((request.user.as_str(), request.verb.as_str(), request.code), ("keyplane", "patch", 200));
        assert_eq!((request.group.as_str(), request.resource.as_str()), ("keyplane.io", "clusterspecs/status"));
        assert!(request.is_write());
    }

    #[test]
    fn half_a_line_is_left_for_later() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.jsonl");
        assert_eq!(read(&log).unwrap(), []);
        fs::write(&log, format!("{}\n{{\"verb\":", LINE.replace('\n', ""))).unwrap();
        assert_eq!(read(&log).unwrap().len(), 1);
    }
}
