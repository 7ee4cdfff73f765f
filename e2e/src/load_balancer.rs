//! A real load balancer before API servers: Debian's HAProxy, on a small machine of its own, so that it has an address
//! of its own and goes with everything else.

use std::iter;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::machine::Machine;
use crate::process::Process;
use crate::wait::eventually;

/// The port on which it listens, and those behind it.
pub const PORT: u16 = 6443;

const CONFIG: &str = "/etc/haproxy/haproxy.cfg";

/// HAProxy answers questions here.
const SOCKET: &str = "/run/haproxy.sock";

/// It asks each API server whether it is ready, as docs/high-availability.md says, and cuts connections to one that is not:
/// clients then come back and are led to another. One that goes says so 15 seconds before it does, so that three answers
/// are no hurry; one slow answer of etcd on a busy computer is not the end of an API server. The server's certificate is
/// of an authority that a load balancer need not know.
const HEAD: &str = "\
global
  log stderr format raw local0 notice
  stats socket /run/haproxy.sock mode 600 level admin
  hard-stop-after 1s

defaults
  mode tcp
  log global
  timeout connect 2s
  timeout check 2s
  timeout client 1h
  timeout server 1h
  retries 2
  option redispatch

frontend kube-apiserver
  bind :::6443 v4v6
  default_backend kube-apiserver

backend kube-apiserver
  balance roundrobin
  option httpchk GET /readyz
  http-check expect status 200
  default-server check check-ssl verify none inter 1s fall 3 rise 2 on-marked-down shutdown-sessions
";

/// An API server behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The machine's name.
    pub name: String,
    /// Its address, of either family.
    pub address: String,
}

impl From<&Machine> for Backend {
    fn from(machine: &Machine) -> Self {
        Self { name: machine.name().to_owned(), address: machine.address() }
    }
}

/// A running load balancer. It ends with its lab, or when it is told to.
#[derive(Debug)]
pub struct LoadBalancer {
    place: Machine,
    haproxy: Option<Process>,
}

impl LoadBalancer {
    pub(crate) fn start_on(place: Machine, backends: &[Backend]) -> Result<Self> {
        let mut balancer = Self { place, haproxy: None };
        balancer.set_backends(backends)?;
        Ok(balancer)
    }

    /// The address for a cluster's `controlPlaneEndpoint`; the port is [`PORT`].
    #[must_use]
    pub fn address(&self) -> String {
        self.place.address()
    }

    /// Puts these API servers behind it, and no others; it is started anew for that.
    ///
    /// # Errors
    /// When HAProxy does not start.
    pub fn set_backends(&mut self, backends: &[Backend]) -> Result<()> {
        self.place.put_file(CONFIG, config(backends).as_bytes(), 0o644)?;
        if self.haproxy.is_some() {
            self.stop()?;
        }
        self.start()
    }

    /// Starts it after [`LoadBalancer::stop`].
    ///
    /// # Errors
    /// When it runs, or does not start.
    pub fn start(&mut self) -> Result<()> {
        if self.haproxy.is_some() {
            bail!("the load balancer {} runs already", self.place.name());
        }
        let mut haproxy = self.place.spawn("haproxy", &["haproxy", "-db", "-f", CONFIG])?;
        eventually("HAProxy", Duration::from_secs(10), || {
            haproxy.check_running()?;
            self.ask("show info")
        })?;
        self.haproxy = Some(haproxy);
        Ok(())
    }

    /// Stops it: nothing answers at its address any more.
    ///
    /// # Errors
    /// When it does not run, or had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        self.haproxy.take().context("the load balancer does not run")?.stop(Duration::from_secs(5))
    }

    /// The API servers that are ready in its eyes, by name.
    ///
    /// # Errors
    /// When it does not run.
    pub fn ready_backends(&self) -> Result<Vec<String>> {
        Ok(ready_in(&self.ask("show stat")?))
    }

    fn ask(&self, question: &str) -> Result<String> {
        // HAProxy answers and hangs up.
        self.place.run(&["sh", "-c", &format!("echo {question} | socat -t 5 - UNIX-CONNECT:{SOCKET}")])
    }
}

fn config(backends: &[Backend]) -> String {
    let lines = backends.iter().map(|Backend { name, address }| {
        let address = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        format!("  server {name} {address}:{PORT}\n")
    });
    iter::once(HEAD.to_owned()).chain(lines).collect()
}

/// The servers that are up, in the answer to `show stat`: comma-separated, the first line names the columns.
fn ready_in(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    let columns: Vec<_> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let place = |name: &str| columns.iter().position(|column| *column == name).unwrap_or(usize::MAX);
    let (server, status) = (place("svname"), place("status"));
    lines
        .filter_map(|line| {
            let cells: Vec<_> = line.split(',').collect();
            let name = *cells.get(server)?;
            // Each proxy has a line of its own too.
            let is_server = !matches!(name, "FRONTEND" | "BACKEND");
            (is_server && cells.get(status)?.starts_with("UP")).then(|| name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_is_a_server_whatever_the_family_of_its_address() {
        let backend = |name: &str, address: &str| Backend { name: name.to_owned(), address: address.to_owned() };
        let text = config(&[backend("cp1", "10.90.1.11"), backend("cp2", "fd00::12")]);
        assert!(text.ends_with("\n  server cp1 10.90.1.11:6443\n  server cp2 [fd00::12]:6443\n"), "{text}");
    }

    #[test]
    fn servers_that_are_up_are_ready_also_after_a_single_failed_check() {
        let text = "# pxname,svname,status\nkube-apiserver,FRONTEND,OPEN\nkube-apiserver,cp1,UP\n\
                    kube-apiserver,cp2,DOWN\nkube-apiserver,cp3,UP 1/2\nkube-apiserver,BACKEND,UP\n";
        assert_eq!(ready_in(text), ["cp1", "cp3"]);
    }
}
