//! A proxy in front of a network: it forwards the tunnels that clients ask for with CONNECT, to the names that it knows
//! and to no others.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// More than any client's CONNECT has.
const LONGEST_REQUEST: usize = 8 * 1024;

/// A proxy on the host's loopback address. It ends with this process.
#[derive(Clone, Debug)]
pub struct Bastion {
    address: SocketAddr,
    inside: Arc<BTreeMap<String, SocketAddr>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Bastion {
    /// Starts one that knows these names (`host:port`), each with the address that it stands for.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(inside: &[(&str, SocketAddr)]) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the proxy")?;
        let inside = inside.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        let bastion =
            Self { address: listener.local_addr()?, inside: Arc::new(inside), asked: Arc::new(Mutex::default()) };
        let server = bastion.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = server.clone();
                // A client that goes away in the middle is nobody's loss.
                thread::spawn(move || server.serve(client).ok());
            }
        });
        Ok(bastion)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where clients wanted to go, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let request = read_head(&mut client)?;
        let mut words = request.split_whitespace();
        let target = match (words.next(), words.next()) {
            (Some("CONNECT"), Some(target)) => target.to_owned(),
            _ => return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n"),
        };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(target.clone());
        let Some(Ok(mut server)) = self.inside.get(&target).map(TcpStream::connect) else {
            return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
        };
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(std::net::Shutdown::Write);
        });
        let _ = io::copy(&mut server, &mut client);
        client.shutdown(std::net::Shutdown::Write)
    }
}

/// The head of a request, and not a byte of what follows it.
fn read_head(client: &mut TcpStream) -> io::Result<String> {
    let mut head = vec![];
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST_REQUEST {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(bastion: &Bastion, target: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(bastion.address).unwrap();
        write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
        let head = read_head(&mut stream).unwrap();
        (stream, head)
    }

    #[test]
    fn forwards_to_a_name_that_it_knows_and_to_no_other() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let bastion = Bastion::start(&[("api.example:6443", server.local_addr().unwrap())]).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).unwrap();
            stream.write_all(&word).unwrap();
        });
        let (mut stream, head) = ask(&bastion, "api.example:6443");
        assert!(head.contains(" 200 "), "{head}");
        stream.write_all(b"ping").unwrap();
        let mut echo = String::new();
        stream.read_to_string(&mut echo).unwrap();
        assert_eq!(echo, "ping");
        assert!(ask(&bastion, "127.0.0.1:1").1.contains(" 502 "));
        assert_eq!(bastion.asked(), ["api.example:6443", "127.0.0.1:1"]);
    }
}
