//! Parses the files that an object has for this node. An object with any invalid entry is rejected as a whole, because
//! a part of the files is of no use.

use std::collections::BTreeMap;

use keyplane_core::checksum::checksum;
use keyplane_core::names::INDEX_KEY;
use keyplane_core::objects::IndexEntry;
use keyplane_crds::keys::{self, CONTENT_CHECKSUM_ANNOTATION};

/// The only directories that an agent writes to. A user who can write the node's objects can't take over the host with
/// `/root/.ssh` or `/etc/passwd`.
const DIRECTORIES: &[&str] = &[
    "/etc/cni/net.d/",
    "/etc/containerd/",
    "/etc/etcd/",
    "/etc/keyplane/",
    "/etc/kubernetes/",
    "/etc/modules-load.d/",
    "/etc/sysctl.d/",
    "/etc/systemd/system/",
    "/usr/lib/systemd/system/kubelet.service.d/",
    "/var/lib/kube-proxy/",
    "/var/lib/kubelet/",
    "/var/lib/kubernetes/",
];

/// Single files that an agent writes elsewhere.
const FILES: &[&str] = &["/etc/crictl.yaml", "/usr/lib/systemd/system/kubelet.service"];

/// Directory of the kubelet's static pods.
const MANIFESTS: &str = "/etc/kubernetes/manifests/";

/// Mode bits of files that other users can write, and setuid, setgid and sticky bits.
const FORBIDDEN_MODE: u32 = !0o755;

/// A file that an object has for the node.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeFile {
    /// Absolute path.
    pub path: String,
    /// Mode bits.
    pub mode: u32,
    /// Owning user.
    pub user: String,
    /// Owning group.
    pub group: String,
    /// Content.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for NodeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:04o} {}:{}", self.path, self.mode, self.user, self.group)
    }
}

impl NodeFile {
    /// Returns whether the file is a static pod. The kubelet starts static pods at once, so they are written last.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        self.path.starts_with(MANIFESTS)
    }
}

/// The files of one object, with the object's checksum.
#[derive(Clone, PartialEq, Eq)]
pub struct DesiredFiles {
    /// Checksum of the object.
    pub checksum: String,
    /// Files in the order of the index.
    pub files: Vec<NodeFile>,
}

/// The reason why an object is rejected. The reason never quotes the object's content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {problem}")]
pub struct InvalidObject {
    object: String,
    problem: String,
}

/// Reads the files of an object. `object` names the object in errors.
///
/// # Errors
/// The object was changed after Keyplane wrote it, or has a path, mode or owner that Keyplane never writes.
pub fn read(
    object: &str,
    annotations: &BTreeMap<String, String>,
    data: &BTreeMap<String, Vec<u8>>,
) -> Result<DesiredFiles, InvalidObject> {
    let invalid = |problem: String| InvalidObject { object: object.to_owned(), problem };
    let written = annotations.get(keys::CONTENT_CHECKSUM_ANNOTATION);
    let written = written.ok_or_else(|| invalid(format!("lacks the annotation {CONTENT_CHECKSUM_ANNOTATION}")))?;
    let found = checksum(data.iter().map(|(key, value)| (key.as_str(), value.as_slice())));
    if *written != found {
        let problem = format!(
            "the data does not match the annotation {CONTENT_CHECKSUM_ANNOTATION}: the object was changed by hand; wait \
             until Keyplane restores it"
        );
        return Err(invalid(problem));
    }
    let index = data.get(INDEX_KEY).ok_or_else(|| invalid(format!("the data has no {INDEX_KEY}")))?;
    let index: Vec<IndexEntry> =
        serde_json::from_slice(index).map_err(|error| invalid(format!("{INDEX_KEY} can't be read: {error}")))?;
    let mut files: Vec<NodeFile> = vec![];
    for entry in index {
        let file = file(entry, data).map_err(&invalid)?;
        if files.iter().any(|other| other.path == file.path) {
            return Err(invalid(format!("{INDEX_KEY} lists {} twice", file.path)));
        }
        files.push(file);
    }
    Ok(DesiredFiles { checksum: found, files })
}

fn file(entry: IndexEntry, data: &BTreeMap<String, Vec<u8>>) -> Result<NodeFile, String> {
    let IndexEntry { key, path, mode, owner } = entry;
    if !is_allowed(&path) {
        return Err(format!("the agent does not write to the path {path:?}"));
    }
    let octal = u32::from_str_radix(&mode, 8).ok().filter(|bits| bits & FORBIDDEN_MODE == 0 && bits & 0o400 != 0);
    let mode = octal.ok_or_else(|| format!("{path} has the mode {mode:?}, which the agent does not accept"))?;
    let name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    let (user, group) = owner
        .split_once(':')
        .filter(|(user, group)| name(user) && name(group))
        .ok_or_else(|| format!("{path} has the owner {owner:?}, which is not user:group"))?;
    let (user, group) = (user.to_owned(), group.to_owned());
    let content =
        data.get(&key).ok_or_else(|| format!("{path} refers to the key {key}, which does not exist"))?.clone();
    Ok(NodeFile { path, mode, user, group, content })
}

/// Returns whether an agent may write to the path.
fn is_allowed(path: &str) -> bool {
    let Some(relative) = path.strip_prefix('/') else { return false };
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('\0');
    relative.split('/').all(plain)
        && (FILES.contains(&path) || DIRECTORIES.iter().any(|directory| path.starts_with(directory)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object with one file.
    fn object(path: &str, mode: &str, owner: &str) -> (BTreeMap<String, String>, BTreeMap<String, Vec<u8>>) {
        let index = format!(r#"[{{"key":"a","path":"{path}","mode":"{mode}","owner":"{owner}"}}]"#);
        let data = BTreeMap::from([("a".to_owned(), b"text".to_vec()), (INDEX_KEY.to_owned(), index.into_bytes())]);
        (annotated(&data), data)
    }

    fn annotated(data: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
        let sum = checksum(data.iter().map(|(key, value)| (key.as_str(), value.as_slice())));
        BTreeMap::from([(keys::CONTENT_CHECKSUM_ANNOTATION.to_owned(), sum)])
    }

    fn rejection(path: &str, mode: &str, owner: &str) -> String {
        let (annotations, data) = object(path, mode, owner);
        read("Secret s", &annotations, &data).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn reads_what_keyplane_writes() {
        let (annotations, data) = object("/etc/kubernetes/pki/ca.crt", "0644", "root:root");
        let wanted = read("Secret s", &annotations, &data).map_err(|error| error.to_string()).unwrap();
        assert_eq!(wanted.files[0].content, b"text");
        assert_eq!(format!("{:?}", wanted.files[0]), "/etc/kubernetes/pki/ca.crt 0644 root:root");
        assert!(!wanted.files[0].is_manifest());
    }

    #[test]
    fn rejects_paths_outside_the_allowed_directories() {
        for path in [
            "/root/.ssh/authorized_keys",
            "/etc/passwd",
            "/etc/kubernetes/../passwd",
            "/etc/kubernetes/./a",
            "/etc/kubernetes//a",
            "/etc/kubernetes/",
            "/etc/kubernetes/.hidden",
            "/etc/kubernetesx/a",
            "/usr/lib/systemd/system/sshd.service",
            "etc/kubernetes/a",
            "",
        ] {
            let error = rejection(path, "0644", "root:root");
            assert!(error.starts_with("Secret s: ") && error.contains("does not write to"), "{path}: {error}");
        }
    }

    #[test]
    fn rejects_unsafe_modes_and_malformed_owners() {
        for mode in ["0666", "4755", "0777", "0100", "rw", "", "0", "99999999999"] {
            assert!(rejection("/etc/kubernetes/a", mode, "root:root").contains("mode"), "{mode}");
        }
        for owner in ["root", "root:", ":root", "Root:root", "a b:c", "../x:y"] {
            assert!(rejection("/etc/kubernetes/a", "0600", owner).contains("owner"), "{owner}");
        }
    }

    #[test]
    fn rejects_content_that_differs_from_the_checksum() {
        let (annotations, mut data) = object("/etc/kubernetes/a", "0600", "root:root");
        data.insert("a".to_owned(), b"other".to_vec());
        let error = read("ConfigMap c", &annotations, &data).map(drop).unwrap_err().to_string();
        assert!(error.contains("by hand") && !error.contains("other"), "{error}");
        let error = read("ConfigMap c", &BTreeMap::new(), &data).map(drop).unwrap_err().to_string();
        assert!(error.contains("lacks the annotation"), "{error}");
    }

    #[test]
    fn rejects_an_invalid_index() {
        let entry = r#"{"key":"a","path":"/etc/kubernetes/a","mode":"0600","owner":"root:root"}"#;
        for (index, words) in [
            (format!("[{entry},{entry}]"), "twice"),
            (format!("[{}]", entry.replace(r#""key":"a""#, r#""key":"b""#)), "does not exist"),
            ("{".to_owned(), "can't be read"),
        ] {
            let data = BTreeMap::from([("a".to_owned(), vec![]), (INDEX_KEY.to_owned(), index.into_bytes())]);
            let error = read("Secret s", &annotated(&data), &data).map(drop).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let empty = BTreeMap::new();
        assert!(read("Secret s", &annotated(&empty), &empty).map(drop).unwrap_err().to_string().contains("no index"));
    }

    /// `operator/tests/agents.rs` checks that an agent accepts the path, mode and owner of every file of every example
    /// and layout.
    #[test]
    fn recognizes_static_pods_by_their_path() {
        let (annotations, data) = object("/etc/kubernetes/manifests/etcd.yaml", "0600", "root:root");
        let wanted = read("ConfigMap c", &annotations, &data).map_err(|error| error.to_string()).unwrap();
        assert!(wanted.files[0].is_manifest());
    }
}
