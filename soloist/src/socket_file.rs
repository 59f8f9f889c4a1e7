//! A unix socket with a file: made for whom its mode says, from the first moment on, and removed in the end.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};

/// The file of a unix socket; removed when this is dropped, unless somebody has put another one there.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: id_of(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id_of(&self.path).is_ok_and(|id| id == self.id) {
            // What cannot be removed is replaced by the next one.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn id_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens at `path` for whom `mode` lets in, whatever the umask is. A socket on which nobody answers makes room.
pub(crate) fn listen(path: &Path, kind: SockType, mode: Mode, backlog: i32) -> io::Result<(OwnedFd, SocketFile)> {
    let socket = match bind(path, kind, mode) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path, kind)?;
            bind(path, kind, mode)?
        }
        bound => bound?,
    };
    // From here on the file is ours to remove.
    let file = SocketFile::at(path)?;
    socket::listen(&socket, Backlog::new(backlog)?)?;
    Ok((socket, file))
}

fn bind(path: &Path, kind: SockType, mode: Mode) -> io::Result<OwnedFd> {
    let socket = new_socket(kind)?;
    // The file gets the mode of the socket, less the umask: nobody else can connect, from the first moment on.
    fchmod(&socket, mode)?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    // What the umask has taken.
    fs::set_permissions(path, fs::Permissions::from_mode(mode.bits()))?;
    Ok(socket)
}

/// Connects to who listens at `path`. A unix socket never makes one wait for that: where it is full, it refuses.
pub(crate) fn connect(path: &Path, kind: SockType) -> io::Result<OwnedFd> {
    let socket = new_socket(kind)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

fn new_socket(kind: SockType) -> io::Result<OwnedFd> {
    Ok(socket::socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?)
}

/// Removes a socket that nobody answers on.
fn remove_stale(path: &Path, kind: SockType) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "there is something else than a socket"));
    }
    match connect(path, kind) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(ErrorKind::AddrInUse.into()),
    }
}
