//! Takes the address that is to be served.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::{self, Backlog, SockType, sockopt};
use nix::sys::stat::Mode;

use crate::error::{Code, Failure};
use crate::settings::Address;
use crate::socket_file::{self, SocketFile};

/// Connections that wait to be taken in. The kernel allows 4096 by default, too.
const BACKLOG: i32 = 4096;

/// What the kernel keeps of an answer that is not read: a slow reader of events shall hear the newest soon.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Takes connections.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The listener, the address that it has now, and the file to remove in the end.
pub(super) fn bind(address: &Address) -> Result<(Listener, Address, Option<SocketFile>), Failure> {
    match address {
        Address::Tcp(wanted) => {
            let (listener, bound) = tcp(*wanted).map_err(|error| refused(address, &error))?;
            Ok((Listener::Tcp(listener), Address::Tcp(bound), None))
        }
        Address::Unix(path) => {
            let (listener, file) = unix(path).map_err(|error| refused(address, &error))?;
            Ok((Listener::Unix(listener), address.clone(), Some(file)))
        }
    }
}

fn refused(address: &Address, error: &io::Error) -> Failure {
    let (code, hint) = match error.kind() {
        ErrorKind::AddrInUse => (Code::Unavailable, "somebody serves there already: end it, or choose another address"),
        ErrorKind::PermissionDenied => (Code::Permission, "choose a port from 1024 on, or a folder that is yours"),
        _ => (Code::Configuration, "an address of this host, or a path in a folder that exists"),
    };
    Failure::new(code, format!("failed to serve http on {address}: {error}")).hint(hint)
}

fn tcp(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // Connections inherit it.
    socket::setsockopt(&listener, sockopt::SndBuf, &SEND_BUFFER_BYTES)?;
    socket::listen(&listener, Backlog::new(BACKLOG)?)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

fn unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let (socket, file) = socket_file::listen(path, SockType::Stream, Mode::S_IRUSR | Mode::S_IWUSR, BACKLOG)?;
    Ok((socket.into(), file))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn port_in_use_is_refused_with_69() {
        let (_held, address, _) = bind(&Address::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
        let failure = bind(&address).unwrap_err();
        assert_eq!(failure.code, Code::Unavailable, "{failure}");
        assert!(failure.message.contains(&address.to_string()), "{failure}");
    }

    #[test]
    fn address_of_another_host_is_refused_with_78() {
        let failure = bind(&Address::Tcp(([192, 0, 2, 1], 0).into())).unwrap_err();
        assert_eq!(failure.code, Code::Configuration, "{failure}");
    }

    #[test]
    fn socket_file_is_private_and_removed_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let bound = bind(&Address::Unix(path.clone())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        // Dropping a listener of the standard library leaves its file.
        drop(UnixListener::bind(&path).unwrap());
        let _bound = bind(&Address::Unix(path.clone())).unwrap();
        let failure = bind(&Address::Unix(path.clone())).unwrap_err();
        assert_eq!(failure.code, Code::Unavailable, "{failure}");
        assert!(path.exists());
    }

    #[test]
    fn file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&Address::Unix(path.clone())).unwrap_err().code, Code::Configuration);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(bind(&Address::Unix(folder.path().join("no/s"))).unwrap_err().code, Code::Configuration);
    }
}
