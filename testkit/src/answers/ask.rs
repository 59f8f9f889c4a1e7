//! Questions who is there, each with its limit of time.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// For one answer: while nobody gets traffic, packets may be dropped.
const PATIENCE: Duration = Duration::from_millis(50);

/// Where questions come from, one after the other. What tracks connections goes on sending those from a port that was used
/// seconds before to where it sent them then; half a minute passes before one comes again.
pub(super) const PORTS: RangeInclusive<u16> = 33_000..=65_000;

/// How it is asked who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Whoever is connected to says so in a line.
    Line,
    /// The page at `/` does.
    Page,
    /// The page at `/` names the leader, as leader-elector does. Asked over one connection, as long as it lasts: who asks
    /// so often over a new one each time takes the place of others, who ask now and then.
    Leader,
}

type Sender = SendRequest<Empty<Bytes>>;

/// Who is there at `address`, asked over a connection of its own from this port.
pub(super) async fn ask(address: SocketAddr, port: u16, manner: Manner) -> Option<String> {
    let answer = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        let stream = socket.connect(address).await?;
        // Forgotten at once by both sides and what is between them, which would keep a thousand a second for minutes.
        stream.set_zero_linger()?;
        if manner == Manner::Line { line(stream).await } else { page(&mut converse(stream).await?, manner).await }
    };
    timeout(PATIENCE, answer).await.ok()?.ok()
}

/// Asks at `address` over one connection for as long as it answers in time.
pub(super) struct Conversation {
    address: SocketAddr,
    sender: Option<Sender>,
}

impl Conversation {
    pub(super) fn with(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    pub(super) async fn ask(&mut self) -> Option<String> {
        let answer = async {
            let mut sender = match self.sender.take() {
                Some(sender) => sender,
                None => converse(TcpStream::connect(self.address).await?).await?,
            };
            let name = page(&mut sender, Manner::Leader).await?;
            self.sender = Some(sender);
            anyhow::Ok(name)
        };
        timeout(PATIENCE, answer).await.ok()?.ok()
    }
}

async fn converse(stream: TcpStream) -> Result<Sender> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with its sender.
    tokio::spawn(connection);
    Ok(sender)
}

async fn line(mut stream: TcpStream) -> Result<String> {
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    understand(Manner::Line, &said)
}

async fn page(sender: &mut Sender, manner: Manner) -> Result<String> {
    let request = hyper::Request::get("/").header("host", "x").body(Empty::new())?;
    let response = sender.send_request(request).await?;
    ensure!(response.status() == 200, "{}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    understand(manner, std::str::from_utf8(&body)?)
}

fn understand(manner: Manner, said: &str) -> Result<String> {
    if manner == Manner::Leader {
        let body: Value = serde_json::from_str(said)?;
        return Ok(body["name"].as_str().context("no name")?.to_owned());
    }
    Ok(said.strip_suffix('\n').context("cut off")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_is_understood_in_each_manner_and_what_was_cut_off_is_not() {
        assert_eq!(understand(Manner::Line, "a\n").unwrap(), "a");
        assert_eq!(understand(Manner::Page, "a\n").unwrap(), "a");
        assert_eq!(understand(Manner::Leader, r#"{"name":"a"}"#).unwrap(), "a");
        for manner in [Manner::Line, Manner::Page, Manner::Leader] {
            for cut_off in ["", "a", r#"{"name":"a"#] {
                assert!(understand(manner, cut_off).is_err(), "{manner:?} {cut_off}");
            }
        }
    }
}
