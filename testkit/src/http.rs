//! Asks a member over HTTP, with nothing but sockets: what is sent is what a test says.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use soloist::descriptors;

use crate::member::Member;
use crate::wait::wait_for;

/// Longer than any answer takes.
const LIMIT: Duration = Duration::from_secs(20);

/// What else a process has open besides many connections.
const OTHERS: u64 = 500;

/// Lets this process open so many connections.
pub fn make_room(connections: usize) -> Result<()> {
    let wanted = connections as u64 + OTHERS;
    let room = descriptors::raise_to(wanted);
    ensure!(room >= wanted, "at most {room} descriptors, {wanted} are needed: raise the hard limit");
    Ok(())
}

/// Where a member serves: `127.0.0.1:9090` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server(String);

/// One connection to it.
pub struct Connection(BufReader<Box<dyn Socket>>);

trait Socket: Read + Write + Send {}
impl<S: Read + Write + Send> Socket for S {}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {self:?}"))
    }
}

impl Server {
    /// Where this member says that it serves.
    pub fn of(member: &Member) -> Result<Self> {
        let said = || {
            let log = member.log();
            // A later one of this name writes behind the earlier.
            let (_, rest) = log.rsplit_once("serving http on ")?;
            rest.split_once('\n').map(|(address, _)| address.trim().to_owned())
        };
        Ok(Self(wait_for("a member to serve HTTP", LIMIT, said)?))
    }

    /// One of another kind of member.
    pub fn at(address: &str) -> Self {
        Self(address.to_owned())
    }

    /// The address, as a person would write it.
    pub fn address(&self) -> &str {
        &self.0
    }

    /// A new connection.
    pub fn connect(&self) -> Result<Connection> {
        let limit = Some(LIMIT);
        let socket: Box<dyn Socket> = match self.0.strip_prefix("unix:") {
            Some(path) => {
                let stream = UnixStream::connect(path).with_context(|| format!("failed to connect to {path}"))?;
                stream.set_read_timeout(limit)?;
                Box::new(stream)
            }
            None => {
                let stream = TcpStream::connect(&self.0).with_context(|| format!("failed to connect to {}", self.0))?;
                stream.set_read_timeout(limit)?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        Ok(Connection(BufReader::new(socket)))
    }

    /// Asks a question on a connection of its own.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.connect()?.get(path)
    }

    /// Makes a request with a body of JSON, and with a token where there is one.
    pub fn post(&self, path: &str, token: Option<&str>, body: &str) -> Result<Answer> {
        let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let (kind, length) = ("content-type: application/json", body.len());
        let mut connection = self.connect()?;
        connection.say(&format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\n{kind}\r\n{token}content-length: {length}\r\n\r\n{body}"
        ))?;
        connection.answer()
    }

    /// Listens to events, from the first one on, which has come when this returns.
    pub fn listen(&self) -> Result<Connection> {
        let mut connection = self.connect()?;
        connection.say("GET /events HTTP/1.1\r\nhost: x\r\n\r\n")?;
        connection.event()?;
        Ok(connection)
    }
}

impl Connection {
    /// Sends this and nothing else.
    pub fn say(&mut self, text: &str) -> Result<()> {
        self.0.get_mut().write_all(text.as_bytes()).context("failed to send")
    }

    /// Asks a question and keeps the connection.
    pub fn get(&mut self, path: &str) -> Result<Answer> {
        self.say(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))?;
        self.answer()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => bail!("the connection has ended"),
            Ok(_) => Ok(line),
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("waited {LIMIT:?} in vain for an answer"),
            Err(error) => Err(error).context("failed to read an answer"),
        }
    }

    fn answer(&mut self) -> Result<Answer> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("no answer: {first:?}"))?;
        let mut length = 0;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().context("no length")?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).context("failed to read a body")?;
        Ok(Answer { status, body: String::from_utf8(body).context("no text")? })
    }

    /// The status that the next event carries.
    pub fn event(&mut self) -> Result<Value> {
        loop {
            if let Some(json) = self.line()?.strip_prefix("data: ") {
                return serde_json::from_str(json).context("no JSON");
            }
        }
    }
}
