//! A socket that keeps packet borders, with what waits to be sent over it. Nothing here ever waits.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::protocol::{self, Packet};
use super::sys;

/// Packets that may wait for a reader that does not read; with more it is as good as dead.
const PACKETS_MAX: usize = 256;

/// One end of a conversation.
#[derive(Debug)]
pub(super) struct Line {
    socket: AsyncFd<OwnedFd>,
    waiting: VecDeque<Packet>,
}

impl Line {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: sys::watch(socket)?, waiting: VecDeque::new() })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends as soon as the socket takes it. False: too much waits already.
    #[must_use]
    pub(super) fn send(&mut self, packet: Packet) -> bool {
        self.waiting.push_back(packet);
        self.flush();
        self.waiting.len() <= PACKETS_MAX
    }

    pub(super) fn flush(&mut self) {
        while let Some(packet) = self.waiting.front() {
            // The socket is asked, not the runtime's memory of it: a packet must be on its way when this returns.
            let sent = or_clear(packet.send(self.socket.as_fd()), || {
                self.socket.try_io(Interest::WRITABLE, |socket| packet.send(socket.as_fd()))
            });
            match sent {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Nobody will ever read it; that somebody is gone is watched elsewhere.
                Err(_) => self.waiting.clear(),
            }
        }
    }

    /// What waits is of no interest any more.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next message and what came with it; nothing while there is none. An error is the end of the conversation.
    pub(super) fn receive<M: DeserializeOwned>(&self) -> Result<Option<(M, Vec<OwnedFd>)>, String> {
        let received = or_clear(protocol::receive::<M>(self.socket.as_fd()), || {
            self.socket.try_io(Interest::READABLE, |socket| protocol::receive::<M>(socket.as_fd()))
        });
        match received {
            Ok(Some(message)) => Ok(Some(message)),
            Ok(None) => Err("it closed the connection".to_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns when there may be something to receive. Cancel safe.
    pub(super) async fn readable(&self) {
        let _ = self.socket.readable().await;
    }

    /// Returns when more can be sent. Cancel safe.
    pub(super) async fn writable(&self) {
        let _ = self.socket.writable().await;
    }
}

/// Tries again through the runtime when it would have to wait, so that the runtime learns that and waits, too.
fn or_clear<T>(first: io::Result<T>, again: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match first {
        Err(error) if error.kind() == ErrorKind::WouldBlock => again(),
        other => other,
    }
}
