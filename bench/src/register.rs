//! The raw limit of a store: a write, its notice to somebody who listens, and a write of theirs. The same client stack and
//! records as soloist's, in one process, with nothing to stop, to prove or to start.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use election::{Activation, Attempt, Claim, Holder, Member, Nonce, Proof, Record, Release, Token, Version, Write};
use soloist::lock::Lock;
use testkit::quantiles::Quantiles;
use testkit::stamp;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::report::Row;
use crate::steps::{LIMIT, SETTLE};

/// One raw handover, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// The first write.
    pub release_ns: u64,
    /// From its answer to the notice of it; nothing if the notice was there first.
    pub notice_ns: u64,
    /// The second write.
    pub acquire_ns: u64,
    /// From the begin of the first write to the answer to the second.
    pub total_ns: u64,
}

/// Two who hand a lock of their own to and fro.
pub struct Raw<L> {
    from: L,
    to: L,
    version: Version,
    round: u64,
    runtime: Runtime,
}

impl<L: Lock> Raw<L> {
    /// The first of two has it, which nobody has held before. Both live in `runtime`.
    pub fn start(runtime: Runtime, [from, to]: [L; 2]) -> Result<Self> {
        let version = runtime.block_on(async {
            let seen = from.read().await?;
            written(from.write(seen.version, &held(0), "raw").await)
        })?;
        Ok(Self { from, to, version, round: 0, runtime })
    }

    /// Hands over once.
    pub fn round(&mut self) -> Result<Parts> {
        self.round += 1;
        let (from, to, version, round) = (&self.from, &self.to, self.version, self.round);
        let release = async {
            // Until the watch is there, and the last notice has been heard.
            sleep(SETTLE).await;
            let began = stamp::now();
            written(from.write(version, &released(round - 1), "raw").await)?;
            anyhow::Ok((began, stamp::now()))
        };
        let take = async {
            to.read().await?;
            to.changed(version).await?;
            let told = stamp::now();
            let seen = to.read().await?;
            let version = written(to.write(seen.version, &held(round), "raw").await)?;
            anyhow::Ok((version, told, stamp::now()))
        };
        let both = async { timeout(LIMIT, async { tokio::try_join!(release, take) }).await };
        let both = self.runtime.block_on(both).context("a raw handover takes too long")?;
        let ((began, answered), (version, told, ended)) = both?;
        self.version = version;
        std::mem::swap(&mut self.from, &mut self.to);
        Ok(Parts {
            release_ns: answered - began,
            notice_ns: told.saturating_sub(answered),
            acquire_ns: ended - told,
            total_ns: ended - began,
        })
    }
}

/// What was measured and its parts; `request` is what a write is called.
pub fn rows(parts: &[Parts], request: &str) -> Vec<Row> {
    type Part = fn(&Parts) -> u64;
    let columns: [(String, Part); 4] = [
        (format!("raw limit: {request}, notice, {request}"), |part| part.total_ns),
        (format!("  the first {request}"), |part| part.release_ns),
        ("  its notice, from the answer on".to_owned(), |part| part.notice_ns),
        (format!("  the second {request}"), |part| part.acquire_ns),
    ];
    columns.map(|(name, of)| Row::of_times(&name, parts.iter().map(of).collect())).into()
}

/// What the raw limit alone comes to.
pub fn limit(raw: &[Row]) -> Quantiles {
    raw.first().map(|row| row.gap).unwrap_or_default()
}

/// The version that a write has led to.
pub fn written(outcome: Write) -> Result<Version> {
    match outcome {
        Write::Written(version) => Ok(version),
        other => bail!("a raw write failed: {other:?}"),
    }
}

fn member(round: u64) -> Member {
    Member { name: "raw".into(), nonce: Nonce(round.into()) }
}

fn record(claim: Claim) -> Record {
    Record { claim, lease: Duration::from_secs(15), slots: 1, paused_until_unix_ms: None }
}

fn held(round: u64) -> Record {
    record(Claim::Held(Holder {
        member: member(round),
        activation: Activation(round.into()),
        attempt: Attempt { count: 1, random: round },
        token: Some(Token(round)),
    }))
}

/// What is left of the holder of a round that has let go.
pub fn released(round: u64) -> Record {
    record(Claim::Released(Release {
        member: member(round),
        activation: Activation(round.into()),
        attempt: Attempt { count: 2, random: round },
        proof: Proof::NoChildLeft,
        successor: None,
    }))
}
