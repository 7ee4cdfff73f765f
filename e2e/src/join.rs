//! A machine joins with the script that Keyplane wrote, as an administrator would run it.
//!
//! There is no systemd on the lab's machines. In its place a `systemctl` writes down what it is told, and has the lab
//! start containerd and the kubelet: the script itself runs as it is, to its end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::image::Image;
use crate::interrupt;
use crate::machine::Machine;
use crate::wait::PATIENCE;

/// Where the stand-in keeps its notes.
const NOTES: &str = "/run/systemctl";

/// Stands for systemctl. Starting containerd is over when it answers (`Type=notify`), starting the kubelet at once.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>/run/systemctl/log
case $1 in
daemon-reload | enable) ;;
restart)
  touch "/run/systemctl/$2.wanted"
  [ "$2" != containerd ] || while [ ! -e /run/systemctl/containerd.started ]; do sleep 0.2; done
  ;;
*)
  echo "systemctl of the lab does not know: $*" >&2
  exit 1
  ;;
esac
"#;

/// Runs the script on the machine to its end, and starts what it wants started. Gives back what it told systemctl.
///
/// # Errors
/// When it fails, or has not joined in time.
pub fn join(machine: &mut Machine, script: &str, images: &[Image]) -> Result<Vec<String>> {
    machine.run(&["mkdir", "-p", NOTES])?;
    machine.put_file(&format!("{NOTES}/log"), b"", 0o600)?;
    machine.put_file("/usr/local/sbin/systemctl", SYSTEMCTL.as_bytes(), 0o755)?;
    machine.put_file("/tmp/join.sh", script.as_bytes(), 0o700)?;
    let mut running = machine.spawn("join", &["sh", "/tmp/join.sh"])?;
    let wanted = |machine: &Machine, unit: &str| machine.read_file(&format!("{NOTES}/{unit}.wanted")).is_ok();
    let started = |machine: &Machine, unit: &str| machine.read_file(&format!("{NOTES}/{unit}.started")).is_ok();
    let begun = Instant::now();
    while running.is_running() {
        interrupt::check()?;
        if wanted(machine, "containerd") && !started(machine, "containerd") {
            machine.start_configured_containerd()?;
            machine.import_images(images)?;
            machine.put_file(&format!("{NOTES}/containerd.started"), b"", 0o600)?;
        }
        if wanted(machine, "kubelet") && !started(machine, "kubelet") {
            machine.start_kubelet()?;
            machine.put_file(&format!("{NOTES}/kubelet.started"), b"", 0o600)?;
        }
        if started(machine, "kubelet") {
            machine.check_kubelet()?;
        }
        if begun.elapsed() > PATIENCE {
            running.kill();
            bail!("the script is still at it: {}", running.log_tail());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let told = running.log_tail();
    ensure!(told.trim_end().ends_with("has joined"), "the script ended without having joined: {told}");
    machine.run(&["rm", "/tmp/join.sh"])?;
    let log = String::from_utf8(machine.read_file(&format!("{NOTES}/log"))?)?;
    Ok(log.lines().map(str::to_owned).collect())
}
