//! What makes a machine a Kubernetes node: containerd, its images, its pod network, and the kubelet as kubeadm's
//! packages start it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{IMAGES, Machine, store};
use crate::cgroup;
use crate::image::{Image, PAUSE};
use crate::parts::Parts;
use crate::process::Process;
use crate::wait::eventually;

/// Everything not named here is containerd's default.
const CONTAINERD: &str = r#"version = 3

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "@PAUSE@"

[plugins.'io.containerd.cri.v1.runtime']
  # Lowering a score needs CAP_SYS_RESOURCE, which a container or a sandboxed machine may not have.
  restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
  conf_dir = "/etc/cni/net.d"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
"#;

/// What this lab needs beside a configuration that Keyplane wrote: a file for containerd's `imports`.
const CONTAINERD_DROP_IN: &str = r#"version = 3

[plugins.'io.containerd.cri.v1.runtime']
  # Lowering a score needs CAP_SYS_RESOURCE, which a container or a sandboxed machine may not have.
  restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
"#;

/// Runs the kubelet, and again where it is to be restarted.
const KUBELET_SUPERVISOR: &str = include_str!("kubelet.sh");

/// Restarts the kubelet of a machine, where there is no systemctl.
const RESTART_KUBELET_SCRIPT: &str = include_str!("restart_kubelet.sh");

/// Where that is on a machine.
pub const RESTART_KUBELET: &str = "/usr/local/sbin/restart-kubelet";

/// The kubelet settings that this lab needs on every machine, as a partial `KubeletConfiguration` for a `ClusterSpec`'s
/// `spec.controlPlane.kubelet` or for kubeadm. They are the same for all machines: what differs (the cgroup root) is a
/// flag that [`Machine::start_kubelet`] adds.
#[must_use]
pub fn lab_kubelet_settings(_machine: &Machine) -> Value {
    json!({
        // No systemd here.
        "cgroupDriver": "cgroupfs",
        // The kernel of this machine may still have version 1.
        "failCgroupV1": false,
        // A developer's machine has swap, and a full disk; nobody wants the lab's pods evicted or, worse, its images
        // deleted, which can't be pulled again.
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
        },
    })
}

impl Machine {
    /// Gives the machine's pods a bridge and the addresses of `pod_cidr`: a range, or one of each family with a comma
    /// between them. Without this, or an add-on that does it, the node stays `NotReady`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn put_pod_network(&self, pod_cidr: &str) -> Result<()> {
        let ranges: Vec<_> = pod_cidr.split(',').map(|range| json!([{"subnet": range}])).collect();
        let all = |range: &str| json!({"dst": if range.contains(':') { "::/0" } else { "0.0.0.0/0" }});
        let routes: Vec<_> = pod_cidr.split(',').map(all).collect();
        let network = json!({
            "cniVersion": "1.0.0",
            "name": "lab",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": true,
                    "ipMasq": true,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "ranges": ranges,
                        "routes": routes,
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        });
        self.put_file("/etc/cni/net.d/10-lab.conflist", &serde_json::to_vec_pretty(&network)?, 0o644)
    }

    /// Starts containerd and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_containerd(&mut self) -> Result<()> {
        let config = CONTAINERD.replace("@PAUSE@", PAUSE);
        self.put_file("/etc/containerd/config.toml", config.as_bytes(), 0o644)?;
        self.run_containerd()
    }

    /// Starts containerd with the configuration that is on the machine, and waits until it answers. What the lab needs
    /// more is a file beside it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_configured_containerd(&mut self) -> Result<()> {
        self.put_containerd_settings()?;
        self.run_containerd()
    }

    /// Puts what the lab needs of containerd beside the configuration that is on the machine.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn put_containerd_settings(&self) -> Result<()> {
        self.put_file("/etc/containerd/conf.d/lab.toml", CONTAINERD_DROP_IN.as_bytes(), 0o644)
    }

    pub(super) fn run_containerd(&mut self) -> Result<()> {
        let mut containerd = self.spawn("containerd", &["containerd", "--config", "/etc/containerd/config.toml"])?;
        eventually("containerd", Duration::from_secs(30), || {
            containerd.check_running()?;
            self.run(&["ctr", "version"])
        })?;
        self.containerd = Some(containerd);
        Ok(())
    }

    /// Puts images into containerd, which must run. Where a machine got just these images before, and this one has
    /// none yet, it gets that machine's store, which takes a tenth of the time.
    ///
    /// # Errors
    /// When containerd refuses one.
    pub fn import_images(&mut self, images: &[Image]) -> Result<()> {
        let fresh = !self.has_images && self.kubelet.is_none();
        self.has_images = true;
        let saved = fresh.then(|| store::saved(self.site.parts.cache(), images)).transpose()?;
        // Machines that need the same images at the same time wait for the first of them.
        let name = saved.as_ref().filter(|saved| !saved.exists()).and_then(|saved| saved.file_name());
        let _lock = name.map(|name| self.site.parts.lock(&name.to_string_lossy())).transpose()?;
        if let Some(saved) = saved.as_ref().filter(|saved| saved.exists()) {
            self.stop_containerd()?;
            store::lay(saved, &self.containerd_store())?;
            return self.start_containerd();
        }
        self.load_images(images)?;
        if let Some(saved) = saved {
            self.stop_containerd()?;
            store::save(&self.containerd_store(), &saved)?;
            self.start_containerd()?;
        }
        Ok(())
    }

    /// Puts images into a containerd that somebody else has started, such as a unit.
    ///
    /// # Errors
    /// When containerd refuses one.
    pub fn load_images(&self, images: &[Image]) -> Result<()> {
        for image in images {
            let name = image.archive().file_name().context("an archive without a name")?.to_string_lossy();
            self.run(&["ctr", "--namespace", "k8s.io", "images", "import", &format!("{IMAGES}/{name}")])?;
        }
        Ok(())
    }

    fn stop_containerd(&mut self) -> Result<()> {
        self.containerd.take().context("containerd does not run")?.stop(Duration::from_secs(30))
    }

    /// Seen from the host, not through the machine: links between two mounts of a file system are refused.
    fn containerd_store(&self) -> PathBuf {
        self.state.join("var/lib/containerd")
    }

    /// Starts the kubelet with the flags that kubeadm's packages give it, with those that kubeadm or Keyplane wrote
    /// down, and with this machine's cgroup root.
    ///
    /// # Errors
    /// When `/var/lib/kubelet/config.yaml` is not there, or the kubelet ends at once.
    pub fn start_kubelet(&mut self) -> Result<()> {
        let parts = self.site.parts.clone();
        self.start_kubelet_of(&parts)
    }

    /// Like [`Machine::start_kubelet`] with the kubelet of another version: see [`Parts::version`].
    ///
    /// # Errors
    /// As [`Machine::start_kubelet`].
    pub fn start_kubelet_of(&mut self, parts: &Parts) -> Result<()> {
        self.read_file("/var/lib/kubelet/config.yaml").context("the kubelet has no configuration")?;
        self.put_file(RESTART_KUBELET, RESTART_KUBELET_SCRIPT.as_bytes(), 0o755)?;
        let mut line: Vec<String> = [
            "sh",
            "-c",
            KUBELET_SUPERVISOR,
            "kubelet-supervisor",
            &parts.program_on_machine("kubelet"),
            "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
            "--kubeconfig=/etc/kubernetes/kubelet.conf",
            "--config=/var/lib/kubelet/config.yaml",
        ]
        .map(str::to_owned)
        .to_vec();
        line.extend(self.lab_kubelet_flags());
        self.kubelet = Some(self.spawn("kubelet", &line)?);
        Ok(())
    }

    /// The flags that a kubelet needs on this machine, and on no real one: its part of the host's cgroups.
    #[must_use]
    pub fn lab_kubelet_flags(&self) -> Vec<String> {
        vec![format!("--cgroup-root=/{}", cgroup::machine_group(&self.site.id, &self.name))]
    }

    /// Stops the kubelet. Its pods go on, as they do on a real machine.
    ///
    /// # Errors
    /// When none runs, or it had to be killed.
    pub fn stop_kubelet(&mut self) -> Result<()> {
        let Some(mut kubelet) = self.kubelet.take() else { bail!("no kubelet was started on {}", self.name) };
        kubelet.stop(Duration::from_secs(30))
    }

    /// For polling code: an error with the end of the kubelet's log if it does not run.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_kubelet(&mut self) -> Result<()> {
        self.kubelet.as_mut().context("no kubelet was started")?.check_running()
    }

    /// Where the kubelet's log is.
    #[must_use]
    pub fn kubelet_log(&self) -> Option<PathBuf> {
        self.kubelet.as_ref().map(|kubelet: &Process| kubelet.log().to_owned())
    }
}
