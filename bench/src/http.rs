//! How soon a member answers over HTTP, and whether those who listen are in the way of a handover.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use testkit::ends::End;
use testkit::http::{Connection, Server, make_room};
use testkit::member::Member;
use testkit::stamp;

use crate::handover::{self, Trio};
use crate::report::Row;
use crate::steps::{Gap, LIMIT};

/// Questions of each kind.
const QUESTIONS: usize = 2_000;

/// How often the verb is run.
const VERBS: usize = 50;

/// How many listen to the events of each member.
const LISTENERS: usize = 1_000;

/// A p50 of fewer handovers says little.
const ROUNDS_MIN: usize = 20;

const OPTIONS: &[&str] = &["--http", "127.0.0.1:0"];

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Http {
    /// Of `/active` and `/status`, from the question to the whole answer on a connection that is kept.
    pub answers: Vec<Row>,
    /// Of `soloist status`, from its start to its end.
    pub verb: Row,
    /// Of handovers without listeners and with them, by turns.
    pub gaps: [Row; 2],
    /// What must never be.
    pub violations: Vec<String>,
}

impl Http {
    /// Measures all of it, `rounds` handovers of each kind among it.
    pub fn measure(rounds: usize) -> Result<Self> {
        let (answers, verb) = answers()?;
        let mut trio = Trio::start("15s", OPTIONS)?;
        let gaps = by_turns(&mut trio, rounds.max(ROUNDS_MIN))?;
        Ok(Self { answers, verb, gaps, violations: trio.violations() })
    }
}

/// Of a member that is active and has nothing else to do.
fn answers() -> Result<(Vec<Row>, Row)> {
    let group = handover::group("15s")?;
    let active = handover::spawn(&group, "active", OPTIONS)?;
    active.wait_active(&group, LIMIT)?;
    let mut connection = Server::of(&active)?.connect()?;
    let mut times = [Vec::with_capacity(QUESTIONS), Vec::with_capacity(QUESTIONS)];
    for _ in 0..QUESTIONS {
        times[0].push(question(&mut connection, "/active")?);
        times[1].push(question(&mut connection, "/status")?);
    }
    let [active_ns, status_ns] = times;
    let rows = vec![Row::of_times("GET /active", active_ns), Row::of_times("GET /status", status_ns)];
    let mut verb = Command::new(group.binary("soloist")?);
    verb.arg("status").arg("--lock").arg(group.lock()).stdin(Stdio::null()).stdout(Stdio::null());
    let verbs = (0..VERBS).map(|_| run(&mut verb)).collect::<Result<Vec<u64>>>()?;
    Ok((rows, Row::of_times("soloist status", verbs)))
}

fn question(connection: &mut Connection, path: &str) -> Result<u64> {
    let at = stamp::now();
    let answer = connection.get(path)?;
    let took = stamp::now() - at;
    ensure!(answer.status == 200, "{path}: {answer:?}");
    Ok(took)
}

fn run(verb: &mut Command) -> Result<u64> {
    let at = stamp::now();
    let status = verb.status().context("failed to run soloist status")?;
    let took = stamp::now() - at;
    ensure!(status.success(), "soloist status: {status}");
    Ok(took)
}

fn by_turns(trio: &mut Trio, rounds: usize) -> Result<[Row; 2]> {
    make_room(3 * LISTENERS)?;
    let mut gaps: [Vec<Gap>; 2] = [Vec::with_capacity(rounds), Vec::with_capacity(rounds)];
    for round in 1..=rounds {
        eprintln!("handovers with listeners and without, round {round} of {rounds}");
        gaps[0].push(trio.round(End::Term)?);
        gaps[1].push(trio.round_amid(End::Term, listeners)?);
    }
    let [alone, crowded] = &gaps;
    let name = |listeners: &str| format!("{}, {listeners} listeners", End::Term);
    Ok([Row::of(name("no"), alone), Row::of(name("1,000"), crowded)])
}

/// They are there and do not read: what is sent waits in their sockets.
fn listeners(members: &[Member]) -> Result<Vec<Connection>> {
    let mut listeners = Vec::with_capacity(members.len() * LISTENERS);
    for member in members {
        let server = Server::of(member)?;
        for _ in 0..LISTENERS {
            listeners.push(server.listen()?);
        }
    }
    Ok(listeners)
}
