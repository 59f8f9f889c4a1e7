//! Where the wrapper comes in.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::SockType;
use nix::sys::stat::Mode;
use tokio::net::UnixListener;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Answer, Hello, VERSION, Word, time_namespace};
use crate::error::{Code, Failure};
use crate::socket_file::{self, SocketFile};
use crate::workload::line::Line;
use crate::workload::protocol::Packet;

/// There is one wrapper, and perhaps the next one already.
const BACKLOG: i32 = 8;

/// How long who has connected may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(2);

/// After a failure to let somebody in.
const PAUSE: Duration = Duration::from_millis(500);

/// Owner and group: the containers of a pod share a group by `fsGroup`, where they do not share a user.
const SOCKET_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR).union(Mode::S_IRGRP).union(Mode::S_IWGRP);

/// Of the socket's folder, where it is made here: the group may pass through it.
const FOLDER_MODE: u32 = 0o750;

/// Others may write.
const WORLD_WRITABLE: u32 = 0o002;

/// Listens for wrappers.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
    /// Of sockets that keep packet borders, which its type does not know of: it only takes connections.
    listener: UnixListener,
    greeting: Option<Greeting>,
    _file: SocketFile,
}

/// Somebody has connected and said nothing yet.
#[derive(Debug)]
struct Greeting {
    line: Line,
    until: Instant,
}

/// A wrapper that has said hello.
#[derive(Debug)]
pub(super) struct Guest {
    pub line: Line,
    /// Readable when its process is gone.
    pub end: OwnedFd,
}

impl Door {
    /// Listens at `path`. Its folder is made where it is missing: that of a volume is everybody's, as a rule.
    ///
    /// # Errors
    /// A folder that others can write to, a path that is taken or too long.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        check_folder(path)?;
        let refused = |error: io::Error| {
            let code = match error.kind() {
                ErrorKind::AddrInUse => Code::Unavailable,
                ErrorKind::PermissionDenied => Code::Permission,
                _ => Code::Configuration,
            };
            Failure::new(code, format!("failed to wait for the application at {}: {error}", path.display()))
                .hint("a path on a volume that both containers mount, which no other sidecar uses")
        };
        let (socket, file) = socket_file::listen(path, SockType::SeqPacket, SOCKET_MODE, BACKLOG).map_err(refused)?;
        let listener = UnixListener::from_std(socket.into()).map_err(refused)?;
        Ok(Self { path: path.to_owned(), listener, greeting: None, _file: file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next wrapper. Cancel safe.
    pub(super) async fn next(&mut self) -> Guest {
        loop {
            match &self.greeting {
                None => self.accept().await,
                Some(greeting) => {
                    let is_late = tokio::select! {
                        biased;
                        () = greeting.line.readable() => false,
                        () = sleep_until(greeting.until) => true,
                    };
                    if let Some(guest) = self.listen(is_late) {
                        return guest;
                    }
                }
            }
        }
    }

    async fn accept(&mut self) {
        let accepted = self.listener.accept().await.and_then(|(socket, _)| Line::new(socket.into_std()?.into()));
        match accepted {
            Ok(line) => self.greeting = Some(Greeting { line, until: Instant::now() + HELLO_LIMIT }),
            // Most likely there are no descriptors left: who waits goes on waiting.
            Err(error) => {
                tracing::warn!("failed to let an application in: {error}");
                sleep(PAUSE).await;
            }
        }
    }

    /// What the one who has connected says.
    fn listen(&mut self, is_late: bool) -> Option<Guest> {
        let greeting = self.greeting.take()?;
        match greeting.line.receive::<Word>() {
            Ok(None) if is_late => None,
            Ok(None) => {
                self.greeting = Some(greeting);
                None
            }
            Ok(Some((Word::Hello(hello), mut fds))) => {
                let mut line = greeting.line;
                match (fault(&hello), fds.pop()) {
                    (None, Some(end)) => Some(Guest { line, end }),
                    (fault, _) => {
                        refuse(&mut line, &fault.unwrap_or_else(|| "it did not say who it is".to_owned()));
                        None
                    }
                }
            }
            Ok(Some(_)) | Err(_) => None,
        }
    }
}

fn fault(hello: &Hello) -> Option<String> {
    if hello.version != VERSION {
        return Some(format!("it speaks version {} of this conversation, and the sidecar {VERSION}", hello.version));
    }
    (hello.time_namespace != time_namespace())
        .then(|| "it is in another time namespace, where deadlines mean other instants".to_owned())
}

/// Says why it is not let in; the connection ends then.
pub(super) fn refuse(line: &mut Line, why: &str) {
    tracing::warn!("an application is not let in: {why}");
    if let Ok(packet) = Packet::new(&Answer::Refused(why.to_owned()), Vec::new()) {
        // Who does not hear it sees the connection end.
        let _ = line.send(packet);
    }
}

/// Makes the folder where it is missing. In one that others can write to, anybody could take the socket's place.
fn check_folder(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let refused = |code, what: String| {
        Failure::new(code, format!("--via {}: {what}", path.display()))
            .hint("a folder of its own below the volume, such as /soloist/via/app.sock; it is made where it is missing")
    };
    let failed = |error: io::Error| {
        let code = if error.kind() == ErrorKind::PermissionDenied { Code::Permission } else { Code::Configuration };
        refused(code, format!("the folder {} cannot be used: {error}", folder.display()))
    };
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let mode = fs::metadata(folder).map_err(failed)?.mode();
    if mode & WORLD_WRITABLE != 0 {
        let what = format!("others can write to the folder {} (mode {:o})", folder.display(), mode & 0o7777);
        return Err(refused(Code::Permission, what));
    }
    Ok(())
}
