//! A client that says exactly what a test wants it to say.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::*;

trait Socket: Read + Write + Send {}
impl<S: Read + Write + Send> Socket for S {}

/// One connection.
pub(super) struct Client(BufReader<Box<dyn Socket>>);

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Client {
    pub fn of(address: &Address) -> Self {
        let socket: Box<dyn Socket> = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                stream.set_write_timeout(Some(LIMIT)).unwrap();
                Box::new(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                stream.set_write_timeout(Some(LIMIT)).unwrap();
                Box::new(stream)
            }
        };
        Self(BufReader::new(socket))
    }

    /// A server that has refused already may not read the rest.
    pub fn say(&mut self, text: &str) {
        let _ = self.0.get_mut().write_all(text.as_bytes());
    }

    pub fn ask(&mut self, text: &str) -> Answer {
        self.say(text);
        self.answer()
    }

    /// The next answer, whose length must be known.
    pub fn answer(&mut self) -> Answer {
        let head = self.head();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer: {head:?}"));
        let mut answer = Answer { status, head, body: String::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// All up to an empty line; less at the end of the connection.
    pub fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            head.push_str(&line);
        }
        head
    }

    /// Empty at the end of the connection.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no line: {error}"),
            _ => line,
        }
    }

    /// The status that the next event carries.
    pub fn event(&mut self) -> (u64, Value) {
        let mut id = None;
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the connection has ended");
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.trim().parse().ok();
            } else if let Some(json) = line.strip_prefix("data: ") {
                return (id.unwrap(), serde_json::from_str(json).unwrap());
            }
        }
    }

    /// The next event, whatever it is called.
    pub fn named_event(&mut self) -> (String, Value) {
        let mut name = String::new();
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the connection has ended");
            if let Some(text) = line.strip_prefix("event: ") {
                name = text.trim().to_owned();
            } else if let Some(json) = line.strip_prefix("data: ") {
                return (name, serde_json::from_str(json).unwrap());
            }
        }
    }

    /// Everything until the other end closes the connection.
    pub fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("it stays open: {error}"),
            _ => String::from_utf8_lossy(&bytes).into_owned(),
        }
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Whether it refuses with this status, and one sentence that tells why.
    pub fn refuses(&self, status: u16, about: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let sentence = self.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(sentence.contains(about), "no word about {about:?}: {sentence:?}");
    }
}
