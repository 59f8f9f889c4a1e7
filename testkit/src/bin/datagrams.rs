//! `datagrams`: prints each datagram that comes to UDP port 10001, a line each, as the sample application of
//! examples/controller does.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context, Result};

/// Where the controller sends its notice.
const PORT: u16 = 10001;

fn main() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT));
    let socket = socket.with_context(|| format!("failed to listen on UDP port {PORT}"))?;
    println!("listening on UDP port {PORT}");
    let mut datagram = [0; 1024];
    loop {
        let (length, from) = socket.recv_from(&mut datagram).context("failed to receive a datagram")?;
        let text = String::from_utf8_lossy(datagram.get(..length).unwrap_or_default());
        println!("received {text} from {from}");
    }
}
