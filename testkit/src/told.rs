//! Who is told by an HTTP request, and does not always say at once that it has understood.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use anyhow::{Context, Result};
use serde_json::Value;

/// A server on a free port of `address` that takes note of what it is told, and answers the first `busy` times that it
/// is busy.
pub fn listen(address: &str, busy: usize) -> Result<(u16, mpsc::Receiver<Value>)> {
    let server = TcpListener::bind((address, 0)).with_context(|| format!("failed to listen at {address}"))?;
    let port = server.local_addr()?.port();
    let (sender, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut number = 0;
        for stream in server.incoming().flatten() {
            let mut stream = BufReader::new(stream);
            // A request that is broken off is none.
            let Some(notice) = read(&mut stream) else { continue };
            let status = if number < busy { "503 Busy" } else { "200 OK" };
            let _ = write!(stream.get_mut(), "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            number += 1;
            if sender.send(notice).is_err() {
                return;
            }
        }
    });
    Ok((port, heard))
}

fn read(stream: &mut impl BufRead) -> Option<Value> {
    let mut length = 0;
    for line in stream.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}
