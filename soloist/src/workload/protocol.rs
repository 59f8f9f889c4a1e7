//! What elector and guard say to each other: one JSON text a packet, over a socket pair that keeps packet borders.
//!
//! Nothing of unbounded length is in a packet. A command line can be megabytes long and holds arbitrary bytes, so it
//! travels in a memfd beside the packet, and so does the path of the lock file.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cgroup::Base;
use super::process::{MARK, ProcessId, failed};
use super::{Containment, Ending, Launch, sys};

/// Bound of one packet. Names and paths are the longest things in it.
const PACKET_BYTES_MAX: usize = 32 * 1024;

/// From the elector. Instants are nanoseconds of CLOCK_BOOTTIME.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// The first packet; the page comes with it.
    Setup { elector: ProcessId, base: Option<Base> },
    /// Makes an activation ready that may be granted soon; the [`Parcel`] comes with it.
    Prepare(Prepare),
    /// What was made ready and not started will not be.
    Discard,
    /// Starts the activation that was made ready; the lock descriptor comes with it if there is one.
    Start(Start),
    /// Starts the command as a standby, which no deadline ends; the [`Parcel`] comes with it.
    Stand(Stand),
    /// Makes the standby the active one, and tells it so. A [`Parcel`] comes with it, for the path of the lock file, and
    /// after it the lock descriptor if there is one.
    Activate(Start),
    /// SIGTERM now, SIGKILL after `grace`, for the reason `why`.
    Stop { grace: Duration, successor: Option<String>, why: String },
    /// SIGKILL now.
    Kill,
    /// Passes a signal on.
    Signal(i32),
    /// Asks for a [`Report::Pong`], and to look at the page again.
    Ping { sent: u64 },
    /// The elector is about to take a lock: if it is stopped at `until`, it must die.
    Holding { until: u64 },
    /// It has let go of that lock.
    NotHolding,
}

impl Order {
    /// Whether it is about an activation.
    pub(super) fn is_for_a_run(&self) -> bool {
        match self {
            Order::Prepare(_)
            | Order::Discard
            | Order::Start(_)
            | Order::Stand(_)
            | Order::Activate(_)
            | Order::Stop { .. }
            | Order::Kill
            | Order::Signal(_) => true,
            Order::Setup { .. } | Order::Ping { .. } | Order::Holding { .. } | Order::NotHolding => false,
        }
    }
}

/// The part of a [`Preparation`](super::Preparation) that fits in a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Prepare {
    pub activation: String,
    pub member: String,
    pub slot: u32,
    pub stop_grace: Duration,
}

/// What only the grant of an activation tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    pub activation: String,
    pub token: u64,
    pub successor: Option<String>,
    /// Whether a lock descriptor comes with this packet.
    pub locked: bool,
}

impl Start {
    pub(super) fn of(launch: &Launch, locked: bool) -> Self {
        Self {
            activation: launch.preparation.activation.to_string(),
            token: launch.token.0,
            successor: launch.successor.clone(),
            locked,
        }
    }
}

/// The part of a [`Standing`](super::warm::Standing) that fits in a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stand {
    /// Names its cgroup: nobody knows yet of which activation it will be.
    pub leaf: String,
    pub member: String,
    /// What its processes are found by.
    pub mark: String,
    pub stop_grace: Duration,
    /// The signal by which it is told that it is active.
    pub notice: Option<i32>,
}

/// From the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The guard guards.
    Ready {
        memory_locked: bool,
    },
    /// The command was executed.
    Started {
        pid: i32,
        containment: Containment,
    },
    /// The command itself ended.
    Exited(Ending),
    /// Nothing is left; the proof in its word, and the version of the release as (incarnation, number).
    Gone {
        proof: String,
        released: Option<(u64, u64)>,
    },
    /// Answers the ping that was sent then, with the worst lateness of this guard so far in nanoseconds.
    Pong {
        sent: u64,
        worst: u64,
    },
    /// Something does not die.
    Stuck(String),
    Failed(String),
}

/// The part of a preparation that is too long or too binary for a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parcel {
    /// The lock file, empty when the guard writes no release.
    pub lock_path: OsString,
    /// Command and arguments.
    pub command: Vec<OsString>,
}

impl Parcel {
    /// Where the guard writes the release, if it does.
    pub(super) fn release(&self) -> Option<PathBuf> {
        (!self.lock_path.is_empty()).then(|| PathBuf::from(&self.lock_path))
    }

    /// Writes it into a new memfd, each part ended by the one byte that neither paths nor arguments can hold.
    pub(super) fn pack(&self) -> io::Result<OwnedFd> {
        let mut bytes = Vec::new();
        for part in [&self.lock_path].into_iter().chain(&self.command) {
            if part.as_bytes().contains(&0) {
                return Err(io::Error::new(
                    ErrorKind::InvalidInput,
                    "failed to pass on an argument: it holds a NUL byte",
                ));
            }
            bytes.extend_from_slice(part.as_bytes());
            bytes.push(0);
        }
        let mut file = File::from(memfd_create("soloist-parcel", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&bytes)?;
        Ok(file.into())
    }

    pub(super) fn unpack(memfd: OwnedFd) -> io::Result<Self> {
        let mut file = File::from(memfd);
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        let mut parts = bytes.split(|byte| *byte == 0).map(|part| OsStr::from_bytes(part).to_owned());
        let lock_path = parts.next().unwrap_or_default();
        let mut command: Vec<_> = parts.collect();
        command.pop(); // What follows the last end mark.
        Ok(Self { lock_path, command })
    }
}

/// A message that is ready to be sent, with its descriptors.
#[derive(Debug)]
pub(super) struct Packet {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Packet {
    pub(super) fn new(message: &impl Serialize, fds: Vec<OwnedFd>) -> io::Result<Self> {
        let bytes = serde_json::to_vec(message).map_err(io::Error::from)?;
        if bytes.len() > PACKET_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidInput, "failed to talk to the guard: a name is too long"));
        }
        Ok(Self { bytes, fds })
    }

    /// Sends without waiting. `WouldBlock` when the other side does not keep up.
    pub(super) fn send(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let raw: Vec<RawFd> = self.fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let controls: &[ControlMessage] = if raw.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&self.bytes)], controls, flags, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Receives one message without waiting. `None` is the end of the connection.
pub(super) fn receive<M: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let (bytes, fds) = sys::receive(socket.as_fd(), PACKET_BYTES_MAX)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let message = serde_json::from_slice(&bytes)
        .map_err(|error| failed("understand a packet", io::Error::new(ErrorKind::InvalidData, error)))?;
    Ok(Some((message, fds)))
}

/// The variable that is known last: only the grant tells the token.
pub(super) const TOKEN: &str = "SOLOIST_FENCING_TOKEN";

/// What the workload is when it starts.
pub(super) const ROLE: &str = "SOLOIST_ROLE";

/// What the environment says of the time of being active, and of soloist itself.
const OWN: [&str; 6] = [ROLE, TOKEN, "SOLOIST_MEMBER", "SOLOIST_ACTIVATION", "SOLOIST_SLOT", MARK];

impl Prepare {
    /// The workload's own variables, but for the [`TOKEN`].
    pub(super) fn variables(&self) -> [(&'static str, String); 4] {
        [
            (ROLE, "active".to_owned()),
            ("SOLOIST_MEMBER", self.member.clone()),
            ("SOLOIST_ACTIVATION", self.activation.clone()),
            ("SOLOIST_SLOT", self.slot.to_string()),
        ]
    }
}

impl Stand {
    /// The workload's own variables, but for the [`ROLE`].
    pub(super) fn variables(&self) -> [(&'static str, String); 2] {
        [("SOLOIST_MEMBER", self.member.clone()), (MARK, self.mark.clone())]
    }
}

/// The environment that the workload gets: the guard's, with its `own` variables and nothing else that soloist sets.
pub(super) fn environment(
    inherited: impl Iterator<Item = (OsString, OsString)>,
    own: &[(&'static str, String)],
) -> Vec<(OsString, OsString)> {
    let is_own = |name: &OsStr| OWN.iter().any(|own| name == *own);
    let mut entries: Vec<_> = inherited.filter(|(name, _)| !is_own(name)).collect();
    entries.extend(own.iter().map(|(name, value)| (name.into(), value.into())));
    entries
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    fn prepare() -> Prepare {
        Prepare {
            activation: format!("{:032x}", 7),
            member: "alpha".to_owned(),
            slot: 2,
            stop_grace: Duration::from_millis(1500),
        }
    }

    #[test]
    fn an_order_and_its_parcel_arrive_whole() {
        let (elector, guard) = pair();
        let parcel = Parcel {
            lock_path: OsString::from_vec(b"/tmp/\xff/lock".to_vec()),
            command: vec![
                "run".into(),
                OsString::new(),
                OsString::from_vec(vec![0xfe, b'x']),
                "y".repeat(3 << 19).into(),
            ],
        };
        let order = Order::Prepare(prepare());
        Packet::new(&order, vec![parcel.pack().unwrap()]).unwrap().send(elector.as_fd()).unwrap();
        let (received, mut fds) = receive::<Order>(guard.as_fd()).unwrap().unwrap();
        assert_eq!(received, order);
        assert_eq!(Parcel::unpack(fds.remove(0)).unwrap(), parcel);
        assert!(fds.is_empty());
        drop(elector);
        // A child that another test is just starting may still have a copy.
        let mut end = [PollFd::new(guard.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut end, PollTimeout::from(10_000_u16)), Ok(1));
        assert!(receive::<Order>(guard.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_full_socket_refuses_instead_of_waiting() {
        let (elector, _guard) = pair();
        let packet = Packet::new(&Order::Kill, Vec::new()).unwrap();
        let error = (0..1_000_000).find_map(|_| packet.send(elector.as_fd()).err()).unwrap();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let nul = Parcel { command: vec!["a\0b".into()], ..Parcel::default() };
        assert_eq!(nul.pack().unwrap_err().kind(), ErrorKind::InvalidInput);
        let successor = Some("x".repeat(PACKET_BYTES_MAX));
        let long = Order::Stop { grace: Duration::ZERO, successor, why: String::new() };
        assert!(Packet::new(&long, Vec::new()).is_err());
    }

    #[test]
    fn the_own_variables_replace_inherited_ones_and_no_old_token_is_left() {
        let inherited = [("SOLOIST_ROLE", "standby"), ("SOLOIST_GROUP", "g"), (TOKEN, "7"), (MARK, "8")];
        let inherited = inherited.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let entries = environment(inherited.into_iter(), &prepare().variables());
        let value = |name: &str| entries.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
        assert_eq!(value("SOLOIST_ROLE"), ["active"]);
        assert_eq!(value("SOLOIST_MEMBER"), ["alpha"]);
        assert_eq!(value("SOLOIST_SLOT"), ["2"]);
        assert!(value(TOKEN).is_empty() && value(MARK).is_empty());
        assert_eq!(value("SOLOIST_GROUP"), ["g"]);
        assert_eq!(entries.len(), 5);
    }
}
