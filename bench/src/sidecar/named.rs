//! Members that only tell who leads: from the leader's SIGTERM until every follower names the next one, and until that one
//! says that it leads.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use testkit::client_go::{self, ClientGo};
use testkit::http::Connection;
use testkit::leader_elector::{DropIn, Election, Elector, NAME};
use testkit::stamp;

use crate::footprint::pss_of;
use crate::peer::Peer;
use crate::steps::LIMIT;

/// One that leads, and two that follow.
const SIZE: usize = 3;

/// What the one that leads answers, as its probe asks.
const LEADS: &str = r#"{"isLeader": true}"#;

/// Between two questions to each follower: they shall not be busy with these.
const PACE: Duration = Duration::from_micros(100);

/// From being up to being known to the others, and with nothing left to do.
pub const CALM: Duration = Duration::from_millis(500);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Every follower names the same one of them.
    AllNames,
    /// One of them says that it leads itself: what its probe of readiness asks.
    Ready,
}

/// leader-elector or a stand-in for it, in one election.
pub struct Named {
    election: Election,
    /// Another program, which knows less.
    is_peer: bool,
    members: Vec<Elector>,
    started: usize,
}

impl Named {
    /// Starts them over a lock of this kind: `endpoints` or `lease`.
    pub fn start(kind: &str) -> Result<Self> {
        let election = if kind == "lease" { Election::free_lease()? } else { Election::free()? };
        Self::fill(election, false)
    }

    /// Starts as many of another program, which elects by Endpoints.
    pub fn of_peer(peer: &Peer) -> Result<Self> {
        Self::fill(Election { dropin: DropIn::of(&peer.path)?, ..Election::new()? }, true)
    }

    fn fill(election: Election, is_peer: bool) -> Result<Self> {
        let mut named = Self { election, is_peer, members: Vec::new(), started: 0 };
        for _ in 0..SIZE {
            named.add()?;
        }
        Ok(named)
    }

    fn add(&mut self) -> Result<()> {
        self.started += 1;
        let name = format!("m{}", self.started);
        let member = if self.is_peer { self.election.start_mute(&name)? } else { self.election.start(&name)? };
        let leader = self.members.first().unwrap_or(&member).name().to_owned();
        if self.members.is_empty() {
            member.wait_named(&leader)?;
        }
        self.members.push(member);
        Ok(())
    }

    fn leader(&self) -> Result<usize> {
        self.members.iter().position(|member| member.names(member.name())).context("nobody leads")
    }

    /// Asks the leader to leave, and waits until the others give this sign. Nanoseconds.
    pub fn round(&mut self, sign: Sign) -> Result<u64> {
        sleep(CALM);
        let leader = self.leader()?;
        let mut old = self.members.remove(leader);
        let mut followers: Vec<Connection> = self.members.iter().map(Elector::connect).collect::<Result<_>>()?;
        let gone = [body(old.name()), body("")];
        let path = if sign == Sign::Ready { "/isLeader" } else { "/" };
        let at = stamp::now();
        old.signal(Signal::TERM)?;
        let began = Instant::now();
        let named = loop {
            let said: BTreeSet<String> =
                followers.iter_mut().map(|follower| Ok(follower.get(path)?.body)).collect::<Result<_>>()?;
            let now = stamp::now();
            let is_given = match sign {
                Sign::AllNames => said.len() == 1 && gone.iter().all(|gone| !said.contains(gone)),
                Sign::Ready => said.contains(LEADS),
            };
            if is_given {
                break now;
            }
            ensure!(began.elapsed() < LIMIT, "nobody follows {}: {said:?}", old.name());
            sleep(PACE);
        };
        let code = old.wait()?;
        ensure!(self.is_peer || code == Some(0), "{}", old.log());
        self.add()?;
        Ok(named - at)
    }

    /// Memory of the one that leads.
    pub fn pss_kb(&self) -> Result<u64> {
        pss_of(self.members.get(self.leader()?).context("nobody leads")?.pid()?)
    }
}

fn body(name: &str) -> String {
    format!(r#"{{"name":"{name}"}}"#)
}

/// The same of client-go's election with its release on shutdown: until both others have logged the next leader.
pub fn client_go_round(election: &Election, round: usize) -> Result<u64> {
    let name = format!("{NAME}-{round}");
    let start = |identity: &str| {
        let mut command = client_go::command(&election.namespace, &name, identity)?;
        command.args(["-release-on-cancel", "sleep", "1000"]);
        ClientGo::start(&format!("{identity}-{round}"), election.dropin.folder(), command)
    };
    let leader = start("c1")?;
    let followers = [start("c2")?, start("c3")?];
    sleep(CALM);
    let at = stamp::now();
    leader.signal(Signal::TERM)?;
    let began = Instant::now();
    let next = |follower: &ClientGo| ["c2", "c3"].into_iter().any(|name| follower.has_seen(name));
    while !followers.iter().all(next) {
        ensure!(began.elapsed() < LIMIT, "nobody follows: {}", followers[0].log());
        sleep(PACE);
    }
    Ok(stamp::now() - at)
}
