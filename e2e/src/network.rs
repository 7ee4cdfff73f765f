//! The bridge of a lab and the cables that machines hang on it by. All names begin with the lab's id, so that they can
//! be removed without any record.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::subnet::Subnet;

/// The bridge of the lab `lab`. An interface name has at most 15 characters.
#[must_use]
pub fn bridge(lab: &str) -> String {
    format!("kp-{lab}")
}

/// The host's end of the cable to the machine with the host number `host`.
fn cable(lab: &str, host: u8) -> String {
    format!("kv-{lab}-{host}")
}

/// Runs `ip` with the words of `line`.
///
/// # Errors
/// When `ip` fails.
pub fn ip(line: &str) -> Result<String> {
    command::run(Command::new("ip").args(line.split_whitespace()))
}

/// Makes the lab's bridge, with the host at number 1 on it.
///
/// # Errors
/// When `ip` fails.
pub fn make_bridge(lab: &str, subnet: Subnet) -> Result<()> {
    let bridge = bridge(lab);
    ip(&format!("link add {bridge} type bridge"))?;
    ip(&format!("addr add {}/24 dev {bridge}", subnet.address(1)))?;
    ip(&format!("link set {bridge} up"))?;
    Ok(())
}

/// Lays a cable from the bridge into the network namespace of the process `pid`, where it is `eth0`. Its hardware address
/// is the same after a boot, as a real one's is: others remember it.
///
/// # Errors
/// When `ip` fails.
pub fn connect(lab: &str, host: u8, pid: u32) -> Result<()> {
    let cable = cable(lab, host);
    ip(&format!("link add {cable} type veth peer name eth0 address {} netns {pid}", hardware_address(host)))?;
    ip(&format!("link set {cable} master {} up", bridge(lab)))?;
    Ok(())
}

/// Switches the bridge's port of one machine on or off.
///
/// # Errors
/// When `ip` fails.
pub fn switch(lab: &str, host: u8, on: bool) -> Result<()> {
    ip(&format!("link set {} {}", cable(lab, host), if on { "up" } else { "down" }))?;
    Ok(())
}

/// A locally administered address that is unique on the bridge.
fn hardware_address(host: u8) -> String {
    format!("02:6b:70:00:00:{host:02x}")
}

/// Removes the cable of one machine, if it is still there: the kernel takes its time with dead namespaces.
pub fn disconnect(lab: &str, host: u8) {
    let _ = ip(&format!("link del {}", cable(lab, host)));
}

/// The interfaces of the lab `lab` on this host.
#[must_use]
pub fn interfaces(lab: &str) -> Vec<String> {
    let (bridge, cables) = (bridge(lab), format!("kv-{lab}-"));
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| *name == bridge || name.starts_with(&cables)).collect()
}

/// Removes all interfaces of the lab `lab`.
///
/// # Errors
/// When one stays.
pub fn remove_interfaces(lab: &str) -> Result<()> {
    for name in interfaces(lab) {
        if let Err(error) = ip(&format!("link del {name}"))
            && interfaces(lab).contains(&name)
        {
            return Err(error);
        }
    }
    Ok(())
}

/// A port of the loopback that nobody listens on. Another process may take it before it is used; then the one that
/// wanted it fails, and says so.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_the_kernel() {
        assert!(bridge("demo0").len() <= 15);
        assert!(cable("demo0", 255).len() <= 15);
    }
}
