//! Which lock a verb is about, and the board that belongs to it: the only place that knows the kinds of locks.

use std::io::ErrorKind;
use std::path::Path;

use super::print::quoted;
use super::{Front, asking};
use crate::cli::kubectl;
use crate::error::{Code, Failure};
use crate::lock::LockError;
use crate::lock::board::{Answer, Asked, Asking, Board, Changes, Look};
use crate::lock::consul::{ConsulBoard, Keys};
use crate::lock::file::FileBoard;
use crate::lock::kubernetes::{Access, Kind, LeaseBoard, ObjectName};
use crate::member::misconfigured;
use crate::settings::{FilePlace, Place};
use crate::snapshot::Announcement;

/// The lock that a verb is about.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Target {
    /// The group's name.
    pub group: String,
    /// The lock.
    pub lock: Place,
    /// The slot that was asked for.
    pub slot: Option<u32>,
    /// How the API server is reached, for a lock that is there.
    pub access: Access,
    /// What it was named by.
    pub front: Front,
}

impl Target {
    /// # Errors
    /// A lock file that is not there. A Lease is looked for by the first look.
    pub fn new(group: Option<String>, lock: Place, access: Access) -> Result<Self, Failure> {
        if let Place::File(FilePlace { path, .. }) = &lock {
            require_file(path)?;
        }
        Ok(Self::named(group, lock, access))
    }

    /// The same for a lock that may not be there yet.
    pub fn named(group: Option<String>, lock: Place, access: Access) -> Self {
        let group = group.unwrap_or_else(|| lock.name());
        Self { group, lock, slot: None, access, front: Front::default() }
    }

    /// The board beside the lock. Inside a runtime only.
    pub async fn board(&self) -> Result<AnyBoard, Failure> {
        self.board_at(&self.lock).await
    }

    /// What is beside the lock of one slot.
    pub async fn board_at(&self, lock: &Place) -> Result<AnyBoard, Failure> {
        match lock {
            Place::File(file) => FileBoard::open(&file.path).map(AnyBoard::File).map_err(asking::failed),
            Place::Kubernetes(lease) => {
                let board = LeaseBoard::open(self.access.clone(), lease.clone()).await;
                board.map(AnyBoard::Lease).map_err(misconfigured)
            }
            Place::Consul(consul) => {
                let board = ConsulBoard::new(consul.access.clone(), Keys::of(&consul.prefix));
                Ok(AnyBoard::Consul(Box::new(board)))
            }
        }
    }

    /// The command line of a verb over this lock, as this one was called.
    pub fn command(&self, verb: &str) -> String {
        let mut text = match (&self.lock, self.front) {
            (Place::Kubernetes(object), Front::Kubectl) => kubectl_words(verb, object),
            (lock, _) => format!("soloist {verb} --lock {}", quoted(&lock.to_string())),
        };
        if let Some(slot) = self.slot {
            text.push_str(&format!(" --slot {slot}"));
        }
        if let (Place::Kubernetes(_), Access { kubeconfig, context, .. }) = (&self.lock, &self.access) {
            let kubeconfig = kubeconfig.as_ref().map(|path| path.to_string_lossy().into_owned());
            for (flag, value) in [("--kubeconfig", kubeconfig.as_ref()), ("--context", context.as_ref())] {
                if let Some(value) = value {
                    text.push_str(&format!(" {flag} {}", quoted(value)));
                }
            }
        }
        text
    }
}

fn kubectl_words(verb: &str, object: &ObjectName) -> String {
    let kind = if object.kind == Kind::Endpoints { "endpoints/" } else { "" };
    let text = format!("{} {verb} {kind}{}", kubectl::CALLED, object.name);
    if object.namespace.is_empty() { text } else { format!("{text} -n {}", object.namespace) }
}

fn require_file(lock: &Path) -> Result<(), Failure> {
    let mut record = lock.to_owned().into_os_string();
    record.push(".record");
    if is_there(lock)? || is_there(Path::new(&record))? {
        return Ok(());
    }
    let what = format!("there is no lock at {}", lock.display());
    let hint = "its first member makes it; is the path the one that the members were started with?";
    Err(Failure::new(Code::Unavailable, what).hint(hint))
}

fn is_there(path: &Path) -> Result<bool, Failure> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => {
            let code = if error.kind() == ErrorKind::PermissionDenied { Code::Permission } else { Code::Unavailable };
            Err(Failure::new(code, format!("failed to look at {}: {error}", path.display())))
        }
    }
}

/// The board of a lock of any kind.
pub(in crate::cli) enum AnyBoard {
    File(FileBoard),
    Lease(LeaseBoard),
    Consul(Box<ConsulBoard>),
}

/// The same call of whichever board it is.
macro_rules! of_either {
    ($board:expr, $inner:ident => $call:expr) => {
        match $board {
            AnyBoard::File($inner) => $call.await,
            AnyBoard::Lease($inner) => $call.await,
            AnyBoard::Consul($inner) => $call.await,
        }
    };
}

impl AnyBoard {
    /// Whether changes are being told at the moment.
    pub fn is_told(&self) -> bool {
        match self {
            AnyBoard::File(_) => true,
            AnyBoard::Lease(board) => board.is_told(),
            AnyBoard::Consul(board) => board.is_told(),
        }
    }

    /// The same after a notice: what that has told is not asked for once more.
    pub async fn look_at_news(&self) -> Result<Look, LockError> {
        match self {
            AnyBoard::Lease(board) => board.look_at_news().await,
            AnyBoard::File(_) | AnyBoard::Consul(_) => self.look_at_what_is_there().await,
        }
    }

    /// One look at a lock that may not be there yet.
    pub async fn look_at_what_is_there(&self) -> Result<Look, LockError> {
        of_either!(self, board => board.look())
    }
}

impl Board for AnyBoard {
    async fn announce(&self, own: &Announcement) -> Result<(), LockError> {
        of_either!(self, board => board.announce(own))
    }

    async fn withdraw(&self, nonce: &str) -> Result<(), LockError> {
        of_either!(self, board => board.withdraw(nonce))
    }

    async fn look(&self) -> Result<Look, LockError> {
        let look = self.look_at_what_is_there().await?;
        match self {
            AnyBoard::Lease(board) if look.seen.record.is_none() => {
                let (name, namespace) = (&board.place().name, &board.place().namespace);
                Err(LockError::Unavailable(format!("there is no Lease {name:?} in namespace {namespace:?}")))
            }
            AnyBoard::Consul(board) if look.seen.record.is_none() => {
                Err(LockError::Unavailable(format!("there is no key {:?} in Consul", board.lock_key())))
            }
            _ => Ok(look),
        }
    }

    async fn asked(&self) -> Result<Option<Asked>, LockError> {
        of_either!(self, board => board.asked())
    }

    async fn answer(&self, answer: &Answer) -> Result<(), LockError> {
        of_either!(self, board => board.answer(answer))
    }

    async fn ask(&self, asked: &Asked) -> Result<Asking, LockError> {
        of_either!(self, board => board.ask(asked))
    }

    async fn answered(&self, id: &str) -> Result<Option<Answer>, LockError> {
        of_either!(self, board => board.answered(id))
    }

    async fn changed(&self) -> Result<Changes, LockError> {
        of_either!(self, board => board.changed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_named_as_it_was_given() {
        let lease = Place::Kubernetes(ObjectName::lease("", "app"));
        let access = Access {
            kubeconfig: Some("/my kube/config".into()),
            context: Some("prod".to_owned()),
            ..Access::default()
        };
        let target = Target::new(None, lease, access.clone()).unwrap();
        assert_eq!(target.group, "app");
        assert_eq!(
            target.command("pause"),
            "soloist pause --lock kubernetes:///app --kubeconfig '/my kube/config' --context prod",
            "what was given is given again"
        );
        let target = Target { lock: operate_on("/srv/my app.lock"), ..target };
        assert_eq!(target.command("pause"), "soloist pause --lock '/srv/my app.lock'");
    }

    fn operate_on(path: &str) -> Place {
        Place::File(FilePlace { path: path.into(), is_default: false })
    }

    #[test]
    fn a_file_that_is_not_there_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.lock");
        let place = Place::File(FilePlace { path: path.clone(), is_default: false });
        let failure = Target::new(None, place.clone(), Access::default()).unwrap_err();
        assert_eq!(failure.code, Code::Unavailable);
        std::fs::write(path, "").unwrap();
        assert_eq!(Target::new(Some("g".to_owned()), place, Access::default()).unwrap().group, "g");
    }
}
