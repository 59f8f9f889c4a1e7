//! Who is compared, and how each is started.

use std::ffi::OsString;

use anyhow::{Context, Result};
use serde::Serialize;
use testkit::group::binary;

use crate::duel::arena::{self, Start};

/// A program that runs a command while it holds a key, as it is unless it is told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Contender {
    /// `soloist run`.
    Soloist,
    /// `soloist consul-lock`.
    StandIn,
    /// Consul's own.
    ConsulLock,
}

impl std::fmt::Display for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Soloist => "soloist run, lease 15 s",
            Self::StandIn => "soloist consul-lock, lease 15 s",
            Self::ConsulLock => "consul lock, session 15 s",
        })
    }
}

impl From<Contender> for String {
    fn from(contender: Contender) -> Self {
        contender.to_string()
    }
}

impl arena::Contender for Contender {
    fn is_ours(&self) -> bool {
        *self != Self::ConsulLock
    }

    fn tells_a_token(&self) -> bool {
        self.is_ours()
    }
}

impl Contender {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Soloist, Self::StandIn, Self::ConsulLock];

    /// The command line of a member.
    pub fn words(self, start: &Start<'_>) -> Result<Vec<OsString>> {
        let soloist = || binary("soloist").map(Into::into);
        let mut words: Vec<OsString> = match self {
            Self::Soloist => {
                let lock = format!("consul:///{}", start.lock);
                vec![soloist()?, "run".into(), "--name".into(), start.name().into(), "--lock".into(), lock.into()]
            }
            Self::StandIn => vec![soloist()?, "consul-lock".into(), "-shell=false".into(), start.lock.into()],
            Self::ConsulLock => {
                let program = std::env::var_os("CONSUL").context("no real Consul is there: make bench-consul")?;
                vec![program, "lock".into(), "-shell=false".into(), start.lock.into()]
            }
        };
        words.extend((self == Self::Soloist).then(|| "--".into()));
        words.extend(start.workload.iter().map(Into::into));
        Ok(words)
    }
}
