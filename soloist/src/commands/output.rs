//! What a command says: its beginning is kept, the rest is read and dropped, so that the command never waits for it.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::time::sleep;

/// How much is kept.
const KEPT_MAX: usize = 4 << 10;

/// How much is read at once: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// Between two reads: a flood costs the elector no more than one of them a millisecond.
const PACE: Duration = Duration::from_millis(1);

/// The reading end of a command's output.
#[derive(Debug)]
pub(super) struct Output {
    pipe: Receiver,
    kept: Vec<u8>,
    closed: bool,
}

impl Output {
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipe: Receiver::from_owned_fd(pipe)?, kept: Vec::new(), closed: false })
    }

    /// Reads for as long as it is polled. Cancel safe.
    pub(super) async fn drain(&mut self) -> Infallible {
        while !self.closed {
            self.closed |= self.pipe.readable().await.is_err();
            self.read();
            sleep(PACE).await;
        }
        std::future::pending().await
    }

    /// Reads once; nothing there is fine.
    fn read(&mut self) {
        let mut chunk = vec![0; CHUNK];
        match self.pipe.try_read(&mut chunk) {
            Ok(0) => self.closed = true,
            Ok(read) => {
                let room = KEPT_MAX - self.kept.len();
                self.kept.extend(chunk.into_iter().take(read.min(room)));
            }
            Err(error) => self.closed |= !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// What was kept, with the last words. What goes on writing finds the pipe closed.
    pub(super) fn said(mut self) -> String {
        self.read();
        one_line(&String::from_utf8_lossy(&self.kept))
    }
}

/// Nothing of it may look like another line of the log or move a cursor.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let joined = lines.collect::<Vec<_>>().join(" | ");
    joined.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_lines_become_one_without_control_characters() {
        assert_eq!(one_line("a\r\n\n  b\x1b[2J\nc"), "a | b[2J | c");
        assert_eq!(one_line(""), "");
    }
}
