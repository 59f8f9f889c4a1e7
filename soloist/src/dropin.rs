//! Front doors that behave like the programs which soloist replaces: one file each. They translate flags, variables,
//! output and exit codes; no protocol lives here.

pub mod consul_lock;
mod go;
pub mod icr;
pub mod k8s_await_election;
pub mod leader_elector;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::cli::kubectl;
use crate::cli::operate::block_on;
use crate::error::{Code, Failure};
use crate::lock::kubernetes::{Access, LeaseBoard, ObjectName};
use crate::lock::{LockError, board::Board};
use crate::member;

/// Runs a front door with its arguments, and returns its exit code.
pub type Door = fn(Vec<OsString>) -> i32;

/// The front door that this binary is called as, if it is one: by a link, or under its name in another image. kubectl's
/// is one of soloist's own.
pub fn called_as(name: &OsStr) -> Option<Door> {
    let doors: [(&str, Door); 7] = [
        (k8s_await_election::NAME, k8s_await_election::main),
        (consul_lock::NAME, consul_lock::main),
        (leader_elector::NAME, leader_elector::main),
        (leader_elector::SERVER, leader_elector::main),
        (icr::NAME, icr::main),
        (kubectl::NAME, kubectl::main),
        (kubectl::completion::NAME, kubectl::completion::main),
    ];
    let called = Path::new(name).file_name()?;
    doors.into_iter().find(|(name, _)| called == *name).map(|(_, door)| door)
}

/// What will never work is said at the start. An API server that does not answer is waited for.
fn first_look(access: &Access, place: ObjectName) -> Result<(), Failure> {
    let look = async {
        let board = LeaseBoard::open(access.clone(), place).await.map_err(member::misconfigured)?;
        match tokio::time::timeout(member::FIRST_LOOK, board.look()).await {
            Ok(Err(LockError::Denied(why))) => Err(Failure::new(Code::Configuration, why)),
            Ok(Err(LockError::Unavailable(_)) | Ok(_)) | Err(_) => Ok(()),
        }
    };
    block_on(look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_alone_decides_wherever_the_link_is() {
        for name in [
            "k8s-await-election",
            "/k8s-await-election",
            "./bin/k8s-await-election",
            "/usr/bin/consul",
            "/server",
            "/usr/bin/icr",
            "/usr/local/bin/kubectl-soloist",
            "/usr/local/bin/kubectl_complete-soloist",
        ] {
            assert!(called_as(OsStr::new(name)).is_some(), "{name}");
        }
        for name in ["", "/", "soloist", "k8s-await-election/soloist", "k8s-await-election-x"] {
            assert!(called_as(OsStr::new(name)).is_none(), "{name}");
        }
    }
}
