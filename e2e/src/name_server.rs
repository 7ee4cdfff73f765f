//! A name server that knows a few names, for programs that look at nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use crate::site::Site;

/// The port that resolvers ask.
const PORT: u16 = 53;

/// The length of a message's head (RFC 1035, section 4.1.1).
const HEAD: usize = 12;

/// An answer with authority, and one that says that there is no such name.
const ANSWER: u16 = 0x8400;
const NO_SUCH_NAME: u16 = 0x8403;

/// Stands for the name in the question, which begins after the head (section 4.1.4).
const NAME_OF_QUESTION: u16 = 0xc00c;

/// The record type of an IPv4 address, and the class of the Internet.
const A: u16 = 1;
const IN: u16 = 1;

type Names = Arc<Mutex<BTreeMap<String, Ipv4Addr>>>;

/// A name server on a loopback address of the host. It ends with this process.
#[derive(Clone, Debug)]
pub struct NameServer {
    names: Names,
    resolv_conf: PathBuf,
}

impl NameServer {
    /// Starts one that knows no name yet. Each lab has a loopback address of its own for it.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(site: &Site) -> Result<Self> {
        let gateway: Ipv4Addr = site.host_address().parse().context("the lab's address")?;
        let [_, second, third, _] = gateway.octets();
        let address = SocketAddr::from((Ipv4Addr::new(127, second, third, PORT.to_be_bytes()[1]), PORT));
        let socket = UdpSocket::bind(address).with_context(|| format!("no name server at {address}"))?;
        let resolv_conf = site.folder.join("resolv.conf");
        fs::write(&resolv_conf, format!("nameserver {}\n", address.ip()))?;
        let names = Names::default();
        let known = Arc::clone(&names);
        // A question that can't be read is a client's fault, and the next one may be better.
        thread::spawn(move || {
            loop {
                let _ = serve(&socket, &known);
            }
        });
        Ok(Self { names, resolv_conf })
    }

    /// Gives a name, without a dot at its end, this address.
    pub fn set(&self, name: &str, address: Ipv4Addr) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), address);
    }

    /// A command that runs this program with this name server as its only one.
    #[must_use]
    pub fn command_with(&self, program: &Path) -> Command {
        const SCRIPT: &str = r#"mount --bind "$1" /etc/resolv.conf && shift && exec "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(&self.resolv_conf).arg(program);
        command
    }
}

fn serve(socket: &UdpSocket, names: &Names) -> io::Result<()> {
    let mut question = [0; 512];
    let (length, client) = socket.recv_from(&mut question)?;
    let names = names.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(answer) = answer(&question[..length], &names) {
        socket.send_to(&answer, client)?;
    }
    Ok(())
}

/// The answer to a message with one question.
fn answer(message: &[u8], names: &BTreeMap<String, Ipv4Addr>) -> Option<Vec<u8>> {
    let id = message.get(..2)?;
    let mut labels = vec![];
    let mut at = HEAD;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?);
    let question = message.get(HEAD..at + 4)?;
    let known = names.get(&labels.join("."));
    let address = known.filter(|_| kind == A);
    let numbers = |numbers: &[u16]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>();
    let flags = if known.is_some() { ANSWER } else { NO_SUCH_NAME };
    let mut answer = id.to_vec();
    // One question, and perhaps one answer.
    answer.extend(numbers(&[flags, 1, u16::from(address.is_some()), 0, 0]));
    answer.extend(question);
    if let Some(address) = address {
        // The answer is good for no time, and has four octets.
        answer.extend(numbers(&[NAME_OF_QUESTION, A, IN, 0, 0, 4]));
        answer.extend(address.octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(kind: u16) -> Vec<u8> {
        let mut question = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        question.extend(b"\x03CP1\x07example\0");
        question.extend(kind.to_be_bytes());
        question.extend(IN.to_be_bytes());
        question
    }

    #[test]
    fn answers_with_the_address_of_a_name_that_it_knows() {
        let names = BTreeMap::from([("cp1.example".to_owned(), Ipv4Addr::new(10, 0, 0, 11))]);
        let told = answer(&question(A), &names).unwrap();
        assert_eq!((&told[..2], &told[2..8]), (&[7, 9][..], &[0x84, 0, 0, 1, 0, 1][..]));
        assert!(told.ends_with(&[0, 4, 10, 0, 0, 11]));
        // It has no IPv6 address, and another name is none.
        let aaaa = answer(&question(28), &names).unwrap();
        assert_eq!(aaaa[2..8], [0x84, 0, 0, 1, 0, 0]);
        let unknown = answer(&question(A), &BTreeMap::new()).unwrap();
        assert_eq!(unknown[2..8], [0x84, 3, 0, 1, 0, 0]);
        assert_eq!(answer(&question(A)[..15], &names), None);
    }
}
