//! Who is at the other end of a connection.

use std::fmt;
use std::net::SocketAddr;

use rustix::process::geteuid;
use tokio::net::UnixStream;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Somebody on the network.
    Address(SocketAddr),
    /// A process of this host.
    Process {
        /// Its user when it connected.
        uid: u32,
        /// Its PID, where it can be seen from here.
        pid: Option<i32>,
    },
    /// A process of this host of which the kernel says nothing.
    Unknown,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> Self {
        match stream.peer_cred() {
            Ok(credentials) => Peer::Process { uid: credentials.uid(), pid: credentials.pid() },
            Err(_) => Peer::Unknown,
        }
    }

    /// Whether it may do anyhow what it can ask for: it could signal this process as well.
    pub(super) fn is_trusted(self) -> bool {
        matches!(self, Peer::Process { uid, .. } if uid == 0 || uid == geteuid().as_raw())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Address(address) => write!(f, "{address} over HTTP"),
            Peer::Process { uid, pid: Some(pid) } => write!(f, "uid {uid}, pid {pid} over HTTP"),
            Peer::Process { uid, pid: None } => write!(f, "uid {uid} over HTTP"),
            Peer::Unknown => write!(f, "an unknown process over HTTP"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_own_user_are_trusted() {
        let own = geteuid().as_raw();
        let process = |uid| Peer::Process { uid, pid: Some(1) };
        assert!(process(0).is_trusted());
        assert!(process(own).is_trusted());
        assert!(!process(own + 1).is_trusted());
        assert!(!Peer::Unknown.is_trusted());
        assert!(!Peer::Address(([127, 0, 0, 1], 1).into()).is_trusted());
    }
}
