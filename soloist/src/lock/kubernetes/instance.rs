//! The instance lock: a name in the pod's network namespace that is taken as long as a process of an earlier run of
//! soloist, or of its workload, may be there. The kernel gives it back when the last of them is gone.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::ObjectName;
use crate::lock::codec::fingerprint;

/// The lock of one pod and one group.
pub struct InstanceLock {
    name: String,
    socket: RefCell<Option<UnixDatagram>>,
}

impl InstanceLock {
    /// Tries to take it.
    pub fn new(pod_uid: &str, place: &ObjectName) -> Self {
        // A socket's name is short, and a Lease's may be long.
        let group = fingerprint(format!("{}/{}", place.namespace, place.name).as_bytes());
        let lock = Self { name: format!("soloist/{pod_uid}/{group:016x}"), socket: RefCell::new(None) };
        lock.is_held();
        lock
    }

    /// Whether it is ours; taken now, if it has become free.
    pub fn is_held(&self) -> bool {
        let mut socket = self.socket.borrow_mut();
        if socket.is_none() {
            *socket = self.bind().ok();
        }
        socket.is_some()
    }

    /// For guard and workload: what they hold is free only once they are gone.
    pub fn share(&self) -> Option<OwnedFd> {
        self.socket.borrow().as_ref()?.try_clone().ok().map(OwnedFd::from)
    }

    fn bind(&self) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&self.name)?)?;
        // Nothing is ever read from it, and nothing shall pile up in it.
        socket.shutdown(std::net::Shutdown::Both)?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(pod: &str, group: &str) -> InstanceLock {
        let uid = format!("{pod}-{}", std::process::id());
        InstanceLock::new(&uid, &ObjectName::lease("prod", group))
    }

    #[test]
    fn it_is_free_once_everybody_who_holds_it_is_gone() {
        let first = lock("free", "app");
        let second = lock("free", "app");
        assert!(first.is_held() && !second.is_held());
        let guard = first.share().unwrap();
        drop(first);
        assert!(!second.is_held(), "the guard holds it still");
        drop(guard);
        assert!(second.is_held());
        assert!(second.is_held(), "and keeps it");
    }

    #[test]
    fn each_pod_and_each_group_has_its_own() {
        let held = [lock("one", "app"), lock("two", "app"), lock("one", &"long".repeat(60))];
        assert!(held.iter().all(InstanceLock::is_held));
    }

    #[test]
    fn nobody_can_fill_it() {
        let lock = lock("full", "app");
        let address = SocketAddr::from_abstract_name(&lock.name).unwrap();
        let stranger = UnixDatagram::unbound().unwrap();
        assert!(stranger.send_to_addr(b"x", &address).is_err());
        assert!(lock.is_held());
    }
}
