//! From the decision that a member is active to the notice at whoever listens on the same host, while the workload is warm
//! and told in three ways at once.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value;
use soloist::clock;
use testkit::member::Member;
use testkit::stamp;
use testkit::wait::wait_for;
use testkit::warm::{spawn, wait_warm};

use crate::handover;
use crate::report::{Row, Target};
use crate::steps::{LIMIT, SETTLE};

/// What half of the notices may take.
const NOTICE_MAX_US: u64 = 1_000;

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Notices {
    /// By signal, request and datagram.
    pub rows: Vec<Row>,
    /// What must never be.
    pub violations: Vec<String>,
    /// What had to be reached.
    pub targets: Vec<Target>,
}

/// When the first notice of each activation came, by its token, in nanoseconds of CLOCK_BOOTTIME.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<HashMap<u64, u64>>>);

impl Heard {
    fn note(&self, notice: &[u8], at: u64) {
        let Ok(notice) = serde_json::from_slice::<Value>(notice) else { return };
        if let (Some("active"), Some(token)) = (notice["role"].as_str(), notice["fencing_token"].as_u64()) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(token).or_insert(at);
        }
    }

    fn of(&self, token: u64) -> Result<u64> {
        let noted = || self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&token).copied();
        wait_for("a notice", LIMIT, noted)
    }
}

impl Notices {
    /// Measures `rounds` handovers.
    pub fn measure(rounds: usize) -> Result<Self> {
        let (by_request, requests) = listen_http()?;
        let (by_datagram, datagrams) = listen_udp()?;
        let listeners = format!("http://127.0.0.1:{requests}/,udp:127.0.0.1:{datagrams}");
        let group = handover::group("15s")?;
        let start = |name: &str| spawn(&group, name, &["--notify", &listeners], &[]);
        let mut active = start("a")?;
        let mut last = active.wait_active(&group, LIMIT)?.token;
        let mut standby = start("b")?;
        let mut times: [Vec<u64>; 3] = Default::default();
        for round in 1..=rounds {
            eprintln!("notices, round {round} of {rounds}");
            wait_warm(&group, &standby)?;
            standby.wait_standby(LIMIT)?;
            thread::sleep(SETTLE);
            active.signal(Signal::TERM)?;
            let next = group.wait_active_after(last, LIMIT)?;
            let decided = decision(&standby, next.token)?;
            let heard = [next.first, by_request.of(next.token)?, by_datagram.of(next.token)?];
            for (times, at) in times.iter_mut().zip(heard) {
                times.push(at.saturating_sub(decided));
            }
            active.wait_exit(LIMIT)?;
            let fresh = start(active.name())?;
            active = std::mem::replace(&mut standby, fresh);
            last = next.token;
        }
        let names = ["notice by signal", "notice by request", "notice by datagram"];
        let rows: Vec<Row> = names.iter().zip(times).map(|(name, times)| Row::of_times(name, times)).collect();
        let target =
            |row: &Row| Target::new(format!("{}, p50 in us", row.name), row.gap.p50_us as f64, NOTICE_MAX_US as f64);
        let violations = group.history().violations().iter().map(ToString::to_string).collect();
        Ok(Self { targets: rows.iter().map(target).collect(), rows, violations })
    }

    /// Whether nothing was missed.
    pub fn is_met(&self) -> bool {
        self.violations.is_empty() && self.targets.iter().all(|target| target.met)
    }
}

impl fmt::Display for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:>5} {:>9}{:>9}{:>9}  (ms)", "from the decision to a", "n", "p50", "p99", "max")?;
        for row in &self.rows {
            writeln!(f, "{:<24} {:>5} {}", row.name, row.n, row.gap)?;
        }
        for violation in &self.violations {
            writeln!(f, "VIOLATION {violation}")?;
        }
        for target in self.targets.iter().filter(|target| !target.met) {
            writeln!(f, "MISSED {}: {} of at most {}", target.what, target.got, target.at_most)?;
        }
        Ok(())
    }
}

/// When a member decided that it is active, as its log says, in nanoseconds of CLOCK_BOOTTIME.
fn decision(member: &Member, token: u64) -> Result<u64> {
    let said = format!("active with token {token}:");
    let at = || {
        let log = member.own_log();
        let line = log.lines().find(|line| line.contains(&said))?;
        line.split_whitespace().next()?.parse::<Timestamp>().ok()
    };
    let at = wait_for("the decision in the log", LIMIT, at)?;
    let ago_us = clock::unix_us().saturating_sub(u64::try_from(at.as_microsecond()).context("a time before 1970")?);
    Ok(stamp::now().saturating_sub(ago_us * 1000))
}

fn listen_udp() -> Result<(Heard, u16)> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("failed to bind a port")?;
    let (heard, port) = (Heard::default(), socket.local_addr().context("no address")?.port());
    let noted = heard.clone();
    thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok(length) = socket.recv(&mut bytes) {
            noted.note(&bytes[..length], stamp::now());
        }
    });
    Ok((heard, port))
}

fn listen_http() -> Result<(Heard, u16)> {
    let server = TcpListener::bind("127.0.0.1:0").context("failed to bind a port")?;
    let (heard, port) = (Heard::default(), server.local_addr().context("no address")?.port());
    let noted = heard.clone();
    thread::spawn(move || {
        for stream in server.incoming().flatten() {
            // A request that is broken off is none.
            let _ = take(stream, &noted);
        }
    });
    Ok((heard, port))
}

fn take(stream: TcpStream, heard: &Heard) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    for line in stream.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().context("no length")?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).context("half a request")?;
    heard.note(&body, stamp::now());
    write!(stream.get_mut(), "HTTP/1.1 204 No Content\r\n\r\n").context("failed to answer")
}
