//! What the verbs over a lock share: which lock it is, its board, and who asks.

pub(super) mod asking;
#[cfg(test)]
pub(super) mod fake;
mod place;
pub(super) mod print;
mod slots;
pub(super) mod survey;

use std::future::Future;

use clap::Args;
use nix::unistd::{Uid, User, gethostname};

use self::print::Format;
use super::access;
use crate::error::{Code, Failure};
use crate::settings::{self, Place};

pub(super) use self::place::{AnyBoard, Target};

/// Which lock, and how to show what comes of it.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// The lock: a path, file:///path/app.lock or kubernetes://NAMESPACE/NAME
    #[arg(long, env = "SOLOIST_LOCK", value_name = "URL")]
    lock: Option<String>,
    /// The group's name; without --lock the lock is GROUP.lock in the state folder
    #[arg(long, env = "SOLOIST_GROUP")]
    group: Option<String>,
    /// Which slot, in a group of which several members may be active
    #[arg(long, value_name = "K")]
    slot: Option<u32>,
    #[command(flatten)]
    access: access::Arguments,
    /// A table for people, or JSON for programs
    #[arg(long, short, env = "SOLOIST_OUTPUT", default_value = "table", value_name = "FORMAT")]
    pub output: Format,
    /// What it was called as.
    #[arg(skip)]
    front: Front,
}

/// What names a lock on the command line that was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Front {
    /// A URL.
    #[default]
    Own,
    /// A name and a namespace.
    Kubectl,
}

impl Common {
    /// The lock for a verb that changes something: it must be named.
    pub fn target(&self) -> Result<Target, Failure> {
        self.there(settings::place(self.lock.as_deref(), self.named_group()?)?)
    }

    /// The lock for a verb that looks before there is one.
    pub fn target_that_may_come(&self) -> Result<Target, Failure> {
        let lock = match (&self.lock, self.named_group()?) {
            (None, None) => settings::only_one()?,
            (lock, group) => settings::place(lock.as_deref(), group)?,
        };
        self.check_plaintext(&lock)?;
        let target = Target::named(self.group.clone(), lock, self.access.clone().into());
        Ok(Target { slot: self.slot, front: self.front, ..target })
    }

    /// The lock for a verb that only looks: the only one in the state folder will do.
    pub fn target_to_look_at(&self) -> Result<Target, Failure> {
        match (&self.lock, self.named_group()?) {
            (None, None) => self.there(settings::only_one()?),
            (lock, group) => self.there(settings::place(lock.as_deref(), group)?),
        }
    }

    /// Is about this lock, whatever else was said.
    pub fn aim(&mut self, lock: Option<String>, front: Front) {
        (self.lock, self.group, self.front) = (lock, None, front);
    }

    fn named_group(&self) -> Result<Option<&str>, Failure> {
        self.group.as_deref().map(settings::group_name).transpose()
    }

    fn check_plaintext(&self, lock: &Place) -> Result<(), Failure> {
        match lock {
            Place::Consul(consul) => consul.check_plaintext(self.access.allow_plaintext),
            Place::File(_) | Place::Kubernetes(_) => Ok(()),
        }
    }

    fn there(&self, lock: Place) -> Result<Target, Failure> {
        self.check_plaintext(&lock)?;
        let target = Target::new(self.group.clone(), lock, self.access.clone().into())?;
        Ok(Target { slot: self.slot, front: self.front, ..target })
    }
}

/// Runs a verb to its end. What still waits for a disk must not keep the process.
pub(crate) fn block_on<T>(verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Internal, format!("failed to start the runtime: {error}")))?;
    let result = runtime.block_on(verb);
    runtime.shutdown_background();
    result
}

/// Who asks: a user, a host and a process.
pub(super) fn oneself() -> String {
    let uid = Uid::current();
    let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let host = gethostname().map_or_else(|_| "unknown".to_owned(), |host| host.to_string_lossy().into_owned());
    format!("{user}@{host} (pid {})", std::process::id())
}
