//! Which files an object wants on this machine. What does not fit is refused as a whole: half an object is worth nothing.

use std::collections::BTreeMap;

use keyplane_core::checksum::checksum;
use keyplane_core::names::INDEX_KEY;
use keyplane_core::objects::IndexEntry;
use keyplane_crds::keys::{self, CONTENT_CHECKSUM_ANNOTATION};

/// Below these directories an agent writes, and nowhere else: whoever can write the machine's objects can't take it over
/// by way of `/root/.ssh` or `/etc/passwd`.
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

/// Single files that it writes elsewhere.
const FILES: &[&str] = &["/etc/crictl.yaml", "/usr/lib/systemd/system/kubelet.service"];

/// Where the kubelet finds static pods.
const MANIFESTS: &str = "/etc/kubernetes/manifests/";

/// What a file that everybody may write, or that is run as its owner, would have.
const FORBIDDEN_MODE: u32 = !0o755;

/// A file that an object wants on the machine.
#[derive(Clone, PartialEq, Eq)]
pub struct MachineFile {
    /// Its absolute path.
    pub path: String,
    /// Its mode.
    pub mode: u32,
    /// Its user.
    pub user: String,
    /// Its group.
    pub group: String,
    /// What is in it.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for MachineFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:04o} {}:{}", self.path, self.mode, self.user, self.group)
    }
}

impl MachineFile {
    /// Whether it is a static pod. The kubelet starts what it sees there at once, so these are written last.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        self.path.starts_with(MANIFESTS)
    }
}

/// An object as far as an agent needs it.
#[derive(Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its checksum.
    pub checksum: String,
    /// Its files, in the order of its index.
    pub files: Vec<MachineFile>,
}

/// Why an object is refused. Nothing of its content is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {problem}")]
pub struct Refused {
    object: String,
    problem: String,
}

/// Reads an object. `object` names it in errors.
///
/// # Errors
/// If it is not what Keyplane wrote, or wants something on the machine that Keyplane never wants.
pub fn read(
    object: &str,
    annotations: &BTreeMap<String, String>,
    data: &BTreeMap<String, Vec<u8>>,
) -> Result<Wanted, Refused> {
    let refused = |problem: String| Refused { object: object.to_owned(), problem };
    let written = annotations.get(keys::CONTENT_CHECKSUM_ANNOTATION);
    let written = written.ok_or_else(|| refused(format!("it lacks the annotation {CONTENT_CHECKSUM_ANNOTATION}")))?;
    let found = checksum(data.iter().map(|(key, value)| (key.as_str(), value.as_slice())));
    if *written != found {
        let problem = format!(
            "its content is not what its annotation {CONTENT_CHECKSUM_ANNOTATION} says: somebody has changed it by hand, \
             and Keyplane puts it right"
        );
        return Err(refused(problem));
    }
    let index = data.get(INDEX_KEY).ok_or_else(|| refused(format!("it has no {INDEX_KEY}")))?;
    let index: Vec<IndexEntry> =
        serde_json::from_slice(index).map_err(|error| refused(format!("its {INDEX_KEY} can't be read: {error}")))?;
    let mut files: Vec<MachineFile> = vec![];
    for entry in index {
        let file = file(entry, data).map_err(&refused)?;
        if files.iter().any(|other| other.path == file.path) {
            return Err(refused(format!("{} is there twice", file.path)));
        }
        files.push(file);
    }
    Ok(Wanted { checksum: found, files })
}

fn file(entry: IndexEntry, data: &BTreeMap<String, Vec<u8>>) -> Result<MachineFile, String> {
    let IndexEntry { key, path, mode, owner } = entry;
    if !is_allowed(&path) {
        return Err(format!("{path:?} is no place for Keyplane's files"));
    }
    let octal = u32::from_str_radix(&mode, 8).ok().filter(|bits| bits & FORBIDDEN_MODE == 0 && bits & 0o400 != 0);
    let mode = octal.ok_or_else(|| format!("{path} has the mode {mode:?}, which no file of Keyplane's has"))?;
    let name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    let (user, group) = owner
        .split_once(':')
        .filter(|(user, group)| name(user) && name(group))
        .ok_or_else(|| format!("{path} has the owner {owner:?}, which is no user:group"))?;
    let (user, group) = (user.to_owned(), group.to_owned());
    let content = data.get(&key).ok_or_else(|| format!("{path} is to have {key}, which is not there"))?.clone();
    Ok(MachineFile { path, mode, user, group, content })
}

/// Whether an agent may write there.
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

    fn refusal(path: &str, mode: &str, owner: &str) -> String {
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
    fn refuses_places_that_are_not_keyplanes() {
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
            let told = refusal(path, "0644", "root:root");
            assert!(told.starts_with("Secret s: ") && told.contains("no place"), "{path}: {told}");
        }
    }

    #[test]
    fn refuses_modes_and_owners_that_are_not_keyplanes() {
        for mode in ["0666", "4755", "0777", "0100", "rw", "", "0", "99999999999"] {
            assert!(refusal("/etc/kubernetes/a", mode, "root:root").contains("mode"), "{mode}");
        }
        for owner in ["root", "root:", ":root", "Root:root", "a b:c", "../x:y"] {
            assert!(refusal("/etc/kubernetes/a", "0600", owner).contains("owner"), "{owner}");
        }
    }

    #[test]
    fn refuses_content_that_is_not_what_the_checksum_says() {
        let (annotations, mut data) = object("/etc/kubernetes/a", "0600", "root:root");
        data.insert("a".to_owned(), b"other".to_vec());
        let told = read("ConfigMap c", &annotations, &data).map(drop).unwrap_err().to_string();
        assert!(told.contains("by hand") && !told.contains("other"), "{told}");
        let told = read("ConfigMap c", &BTreeMap::new(), &data).map(drop).unwrap_err().to_string();
        assert!(told.contains("lacks the annotation"), "{told}");
    }

    #[test]
    fn refuses_an_index_that_does_not_fit() {
        let entry = r#"{"key":"a","path":"/etc/kubernetes/a","mode":"0600","owner":"root:root"}"#;
        for (index, words) in [
            (format!("[{entry},{entry}]"), "twice"),
            (format!("[{}]", entry.replace(r#""key":"a""#, r#""key":"b""#)), "not there"),
            ("{".to_owned(), "can't be read"),
        ] {
            let data = BTreeMap::from([("a".to_owned(), vec![]), (INDEX_KEY.to_owned(), index.into_bytes())]);
            let told = read("Secret s", &annotated(&data), &data).map(drop).unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
        }
        let empty = BTreeMap::new();
        assert!(read("Secret s", &annotated(&empty), &empty).map(drop).unwrap_err().to_string().contains("no index"));
    }

    /// Every file of every example and layout has a place, a mode and an owner that an agent takes: see
    /// `operator/tests/agents.rs`.
    #[test]
    fn static_pods_are_told_from_other_files() {
        let (annotations, data) = object("/etc/kubernetes/manifests/etcd.yaml", "0600", "root:root");
        let wanted = read("ConfigMap c", &annotations, &data).map_err(|error| error.to_string()).unwrap();
        assert!(wanted.files[0].is_manifest());
    }
}
