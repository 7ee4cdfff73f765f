//! The shell steps of join data, the same in every format: identify the node, download missing programs, prepare the
//! kernel, start containerd and the kubelet, and clean up. POSIX sh; each step is idempotent.

use std::fmt::Write;

use keyplane_crds::Download;

use keyplane_crds::BootstrapFormat;

use super::agent_files::AgentFiles;
use super::files::FLAGS_FILE;
use super::pool::Pool;
use crate::host_files::{File, KERNEL_MODULES, SYSCTL_FILE};
use crate::model::Cluster;

/// The paths of downloaded programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    /// The directory of the kubelet and kubectl.
    pub(super) programs: &'static str,
    /// The directory in which containerd's archive is unpacked, with its programs in `bin`.
    pub(super) containerd: &'static str,
    /// The directory of runc.
    pub(super) runc: &'static str,
}

impl Places {
    /// The paths of kubeadm's packages and of containerd's instructions.
    pub(super) const USUAL: Self = Self { programs: "/usr/bin", containerd: "/usr/local", runc: "/usr/local/sbin" };
    /// The paths for operating systems with a read-only `/usr`.
    pub(super) const READ_ONLY_USR: Self = Self { programs: "/opt/bin", containerd: "/opt", runc: "/opt/bin" };
}

/// Returns the paths for downloads. Operating systems with Ignition have a read-only `/usr`.
pub(super) fn places(pool: &Pool) -> Places {
    match pool.bootstrap.format {
        BootstrapFormat::Ignition => Places::READ_ONLY_USR,
        BootstrapFormat::Script | BootstrapFormat::CloudConfig => Places::USUAL,
    }
}

const FUNCTIONS: &str = r#"set -eu
PATH=$PATH:/usr/sbin:/sbin
export PATH

say() { printf 'keyplane: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

# Writes standard input to the file $1 with the mode $2, all of it or nothing.
put() {
  (umask 022; mkdir -p "$(dirname "$1")")
  (umask 077; cat >"$1.keyplane")
  chmod "$2" "$1.keyplane"
  mv -f "$1.keyplane" "$1"
}

# Whether this machine has an address in the range $1.
has() { [ -n "$(ip -o addr show to "$1" 2>/dev/null)" ]; }

[ "$(id -u)" = 0 ] || stop "run this as root"
command -v ip >/dev/null || stop "the program ip is missing: install iproute2"
"#;

const FETCH: &str = r#"
# Puts the file of the URL $1 at $2; its SHA-256 must be $3 if that is given.
fetch() {
  say "getting $1"
  if command -v curl >/dev/null; then
    curl -fsSL --retry 5 -o "$2" "$1" || stop "$1 could not be had"
  else
    wget -q -O "$2" "$1" || stop "$1 could not be had"
  fi
  if [ -n "${3:-}" ]; then
    echo "$3  $2" | sha256sum -c - >/dev/null || stop "$1 is not the file whose SHA-256 is $3"
  fi
}
# Puts a program: the URL $1, the path $2, the SHA-256 $3.
program() {
  mkdir -p "$(dirname "$2")"
  fetch "$1" "$2.keyplane" "${3:-}"
  chmod 0755 "$2.keyplane"
  mv -f "$2.keyplane" "$2"
}
# Unpacks an archive: the URL $1, the directory $2, the SHA-256 $3.
archive() {
  mkdir -p "$2"
  fetch "$1" "$2/.keyplane.tar.gz" "${3:-}"
  tar -C "$2" -xzf "$2/.keyplane.tar.gz"
  rm -f "$2/.keyplane.tar.gz"
}
case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
*) arch=$(uname -m) ;;
esac
"#;

/// Renders the part of the script before the files: functions, identification of the node, and downloads. The script
/// writes nothing before it has identified the node.
pub(super) fn beginning(cluster: &Cluster, pool: &Pool) -> String {
    let mut text = FUNCTIONS.to_owned();
    text.push_str("\n# Which machine of the pool is this? Only what is declared may join.\n");
    text.push_str("host=$(uname -n)\nname='' node_ip='' provider_id='' labels=''\n");
    for machine in &pool.machines {
        let tests: Vec<_> = machine.addresses.iter().map(|address| format!("has {address}")).collect();
        let addresses: Vec<_> = machine.node_ips(cluster).iter().map(ToString::to_string).collect();
        // If several nodes use an address one after the other, the host name decides.
        let _ = writeln!(
            text,
            "if {}; then\n  if [ -z \"$name\" ] || [ \"$host\" = {name} ]; then\n    \
             name={name} node_ip={} provider_id={} labels={}\n  fi\nfi",
            tests.join(" || "),
            addresses.join(","),
            quoted(machine.provider_id.as_deref().unwrap_or_default()),
            quoted(&pool.kubelet_labels(Some(machine))),
            name = machine.name,
        );
    }
    if let Some(selector) = &pool.selector {
        let dots = selector.name_pattern.matches('.').count();
        let ranges: Vec<_> = selector.address_cidrs.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            text,
            "if [ -z \"$name\" ]; then\n  case $host in\n  {pattern})\n    \
             # The star stands for no dot.\n    if [ \"$(printf %s \"$host\" | tr -cd . | wc -c)\" -eq {dots} ]; then\n      \
             for range in {ranges}; do\n        \
             address=$(ip -o addr show to \"$range\" scope global | sed -n 's|.* inet6\\{{0,1\\}} \\([^/ ]*\\).*|\\1|p' | head -n 1)\n        \
             if [ -n \"$address\" ] && [ -z \"$name\" ]; then\n          \
             name=$host node_ip=$address labels={labels}\n        fi\n      done\n    fi\n    ;;\n  esac\nfi",
            pattern = selector.name_pattern,
            ranges = ranges.join(" "),
            labels = quoted(&pool.kubelet_labels(None)),
        );
    }
    let _ = writeln!(
        text,
        "[ -n \"$name\" ] || stop \"this machine, $host with $(ip -o addr show scope global | \
         sed 's|.* inet6\\{{0,1\\}} \\([^/ ]*\\).*|\\1|' | tr '\\n' ' '), is none of NodePool {}: declare its address there\"",
        pool.name
    );
    text.push_str("say \"this is $name\"\n");
    if !pool.bootstrap.hosts.is_empty() {
        text.push_str("\n# Names that no DNS here knows; downloads may need them.\n");
    }
    for entry in &pool.bootstrap.hosts {
        let line = format!("{} {}", entry.address, entry.names.join(" "));
        let _ = writeln!(text, "grep -qxF '{line}' /etc/hosts || echo '{line}' >>/etc/hosts");
    }
    text.push_str(&downloads(cluster, pool));
    text
}

/// Renders a file as a here-document for the shell function `put`.
pub(super) fn here_document(file: &File) -> String {
    let mut end = "KEYPLANE".to_owned();
    // No line of the content may end the here-document.
    while file.content.lines().any(|line| line == end) {
        end.push('_');
    }
    format!("put {} {:04o} <<'{end}'\n{}{end}\n", quoted(&file.path), file.mode, file.content)
}

/// Renders the part of the script after the files. `token` is the kubeconfig with the bootstrap token.
pub(super) fn ending(pool: &Pool, kubelet: &serde_json::Value, token: &File, agents: &[AgentFiles]) -> String {
    let mut text = "
# What only this machine has.
mkdir -p /etc/kubernetes/manifests
flags=\"--hostname-override=$name --node-ip=$node_ip\"
[ -z \"$provider_id\" ] || flags=\"$flags --provider-id=$provider_id\"
[ -z \"$labels\" ] || flags=\"$flags --node-labels=$labels\"
"
    .to_owned();
    let _ = writeln!(text, "printf 'KUBELET_KUBEADM_ARGS=\"%s\"\\n' \"$flags\" | put {FLAGS_FILE} 0644");
    let [overlay, bridge] = KERNEL_MODULES;
    let _ = write!(
        text,
        "
# The kernel: a module may be built in, and then there is nothing to load.
grep -qw {overlay} /proc/filesystems || modprobe {overlay} || stop \"the kernel has no {overlay}\"
[ -d /proc/sys/net/bridge ] || modprobe {bridge} || stop \"the kernel has no {bridge}\"
sysctl -q -p {SYSCTL_FILE}
"
    );
    if kubelet.get("failSwapOn").and_then(serde_json::Value::as_bool) != Some(false) {
        text.push_str(
            "
# Swap: the kubelet does not start with it.
swapoff -a
if grep -qE '^[^#[:space:]]+[[:space:]]+[^[:space:]]+[[:space:]]+swap[[:space:]]' /etc/fstab 2>/dev/null; then
  sed -E '/^[^#[:space:]]+[[:space:]]+[^[:space:]]+[[:space:]]+swap[[:space:]]/s/^/# /' /etc/fstab | put /etc/fstab 0644
fi
",
        );
    }
    text.push_str(
        "
# A kubelet that has a certificate of its own asks with that one: then no token is needed.
if [ ! -s /var/lib/kubelet/pki/kubelet-client-current.pem ] || [ ! -s /etc/kubernetes/kubelet.conf ]; then
",
    );
    text.push_str(&here_document(token));
    let _ = write!(
        text,
        "fi

systemctl daemon-reload
systemctl enable containerd kubelet
# What runs already reads its new files only when it starts anew; Pods go on meanwhile.
systemctl restart containerd
systemctl restart kubelet

# The kubelet makes its key, asks for a certificate, and writes kubelet.conf when it has it.
tries=0
while [ ! -s /var/lib/kubelet/pki/kubelet-client-current.pem ] || [ ! -s /etc/kubernetes/kubelet.conf ]; do
  tries=$((tries + 1))
  [ $tries -lt {MAX_CHECKS} ] || stop \"no certificate after {minutes} minutes: see journalctl -u kubelet, and the status of NodePool {pool}; \
then run this again\"
  sleep {CHECK_INTERVAL_SECONDS}
done
rm -f {bootstrap}
{agents}say \"$name has joined\"
",
        minutes = MAX_CHECKS * CHECK_INTERVAL_SECONDS / 60,
        pool = pool.name,
        bootstrap = token.path,
        agents = begin_agent(agents),
    );
    text
}

/// Renders the start of the node's agent, if the cluster has agents. An agent with a credential of its own keeps it.
fn begin_agent(agents: &[AgentFiles]) -> String {
    if agents.is_empty() {
        return String::new();
    }
    let mut text = "
# The agent: it carries this machine's files from now on.
agent=''
if [ ! -s /etc/keyplane/token ]; then
  case $name in
"
    .to_owned();
    for AgentFiles { machine, files } in agents {
        let files: Vec<_> = files.iter().map(here_document).collect();
        let _ = write!(text, "  {machine})\n{}agent=new\n    ;;\n", files.concat());
    }
    text.push_str(
        "  esac
fi
if [ -n \"$agent\" ] && [ -x /usr/local/bin/keyplane ]; then
  systemctl daemon-reload
  systemctl enable keyplane-node
  systemctl restart keyplane-node
elif [ -n \"$agent\" ]; then
  say \"/usr/local/bin/keyplane is missing, so keyplane-node does not run: put it there\"
fi

",
    );
    text
}

/// The number of checks for the kubelet's certificate.
const MAX_CHECKS: u32 = 300;
/// The seconds between two checks.
const CHECK_INTERVAL_SECONDS: u32 = 2;

fn downloads(cluster: &Cluster, pool: &Pool) -> String {
    let Some(downloads) = &pool.bootstrap.downloads else { return String::new() };
    let places = places(pool);
    let Places { programs, containerd, runc } = places;
    let version = cluster.version.to_string();
    let line = |function: &str, download: &Download, path: &str| {
        // The script inserts the architecture of the host.
        let url = download.url.replace("{version}", &version).replace("{arch}", "'\"$arch\"'");
        format!("{function} '{url}' {path} {}\n", download.sha256.as_deref().unwrap_or_default()).replace(" \n", "\n")
    };
    let lines: String = [
        (&downloads.kubelet, "program", format!("{programs}/kubelet")),
        (&downloads.kubectl, "program", format!("{programs}/kubectl")),
        (&downloads.containerd, "archive", containerd.to_owned()),
        (&downloads.runc, "program", format!("{runc}/runc")),
        (&downloads.cni_plugins, "archive", "/opt/cni/bin".to_owned()),
    ]
    .into_iter()
    .filter_map(|(download, function, path)| Some(line(function, download.as_ref()?, &path)))
    .collect();
    if lines.is_empty() { lines } else { format!("{FETCH}{lines}") }
}

/// Quotes a word for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
