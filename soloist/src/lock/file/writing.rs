//! The compare-and-set on a lock file, and what each kind of write has to check.

use std::io;
use std::path::Path;
use std::time::Duration;

use election::{Activation, Attempt, Claim, Evidence, Holder, Proof, Record, Release, Token, Version, Write};
use serde_json::Map;

use super::super::codec::Document;
use super::super::history;
use super::paths::{Inode, Paths};
use super::queue::Flock;
use super::store::{self, StoreError, Stored, WRITE_LOCK_LIMIT, WriteLock};
use super::{Own, Shared, evidence};
use crate::clock::unix_us;

/// How long the flock of a holder that was killed may take to arrive. If it takes longer, its arrival is news.
const ARRIVAL_LIMIT: Duration = Duration::from_millis(100);
/// How long the guard waits for the write lock at a time.
const RELEASE_LOCK_LIMIT: Duration = Duration::from_millis(20);

impl Shared {
    /// One conditional write. Blocks.
    pub(super) fn write(&self, expected: Version, record: Record, why: &str) -> Write {
        self.try_write(expected, record, why).unwrap_or_else(|write| write)
    }

    /// Ends early, with the answer as the error, as soon as it is clear that nothing can be stored.
    fn try_write(&self, expected: Version, record: Record, why: &str) -> Result<Write, Write> {
        // Learns also whether an unanswered acquiring write has landed.
        let stored = self.expect(expected)?;
        match &record.claim {
            Claim::Foreign(_) => Err(Write::Denied("a foreign claim cannot be stored".into())),
            // The flock tells who may create the record.
            Claim::Vacant(_) => Err(Write::Denied("a lock file is never marked as vacant".into())),
            Claim::Released(release) => self.release(expected, &record, release, why),
            Claim::Held(holder) if self.known().owns(holder.activation) => self.renew(expected, &record, holder),
            Claim::Held(holder) => {
                self.clear_the_way(stored.as_ref(), holder)?;
                self.acquire(expected, &record, holder, why)
            }
        }
    }

    /// The record, if the lock is at this version.
    fn expect(&self, expected: Version) -> Result<Option<Stored>, Write> {
        let (version, stored) = self.look().map_err(|error| denied("read the record", &error))?;
        match stored {
            None if expected != Version::ABSENT => Err(Write::Gone),
            _ if version != expected => Err(Write::Conflict),
            stored => Ok(stored),
        }
    }

    fn write_lock(&self) -> Result<WriteLock, Write> {
        WriteLock::take(&self.paths, WRITE_LOCK_LIMIT).map_err(|error| denied("lock the record for a write", &error))
    }

    /// Before an acquiring write: ends the activation before it, if that did not release.
    fn clear_the_way(&self, stored: Option<&Stored>, holder: &Holder) -> Result<(), Write> {
        let won = self.flock()?.is_some();
        let held = stored.and_then(|stored| match &stored.document.record.claim {
            Claim::Held(old) => Some((&stored.document, old.activation)),
            // Nothing of it is left but its keepers, which should have let go long ago.
            Claim::Released(old) if !won => Some((&stored.document, old.activation)),
            Claim::Released(_) | Claim::Vacant(_) | Claim::Foreign(_) => None,
        });
        let Some((document, old)) = held else { return if won { Ok(()) } else { Err(Write::Conflict) } };
        if old == holder.activation {
            return Err(Write::Denied(format!("activation {old} was acquired by another process")));
        }
        let (keepers, finding) = {
            let known = self.known();
            (known.keepers.clone(), known.finding.filter(|(of, _)| *of == old))
        };
        if won {
            if !matches!(finding, Some((_, Evidence::Gone(_)))) {
                evidence::end_tree(document, old, &keepers);
            }
            return Ok(());
        }
        // One at a time: a call that was given up goes on.
        let Ok(_clearing) = self.clearing.try_lock() else {
            return Err(Write::Denied(format!("activation {old} is being ended")));
        };
        // Its keepers hold the flock, but have not renewed for a lease: they are stopped or hang.
        evidence::kill_keepers(document, &keepers);
        let found = evidence::end_tree(document, old, &keepers);
        self.known().finding = Some((old, found));
        if self.queue.wait_won(ARRIVAL_LIMIT) {
            // The next read says whether that is proof.
            return Err(Write::Conflict);
        }
        Err(Write::Denied(format!(
            "some process still has {:?} open and locked, although the keepers of activation {old} were killed; \
             lslocks and fuser find it",
            self.paths.lock
        )))
    }

    fn flock(&self) -> Result<Option<Flock>, Write> {
        self.queue.won().map_err(|error| denied("look at the lock file", &error))
    }

    /// The first write of an activation: never without the flock, and never before its token is durable.
    /// See docs/safety.md R11.
    fn acquire(&self, expected: Version, record: &Record, holder: &Holder, why: &str) -> Result<Write, Write> {
        let _announced = self.holds.writing();
        let _lock = self.write_lock()?;
        let stored = self.expect(expected)?;
        let Some(flock) = self.flock()? else { return Err(Write::Conflict) };
        let counter = store::read_counter(&flock.file).map_err(|error| denied("read the token counter", &error))?;
        let number = next(expected.number.max(counter).max(self.known().largest))?;
        store::write_counter(&flock.file, number).map_err(|error| denied("store the token counter", &error))?;

        let _record = self.with_record();
        let own = {
            let mut known = self.known();
            let keepers = known.keepers.clone();
            let own = Own { activation: holder.activation, inode: flock.inode, keepers, settled: false };
            known.own = Some(own.clone());
            // A failed write may be tried again: its token must be larger nevertheless.
            known.largest = known.largest.max(number);
            own
        };
        let mut document = base(stored);
        document.record = record.clone();
        fill_token(&mut document, Token(number));
        let token = token_of(&document);
        history::acquired(&mut document.history, token, &holder.member.name, why, unix_us());
        let answer = self.store(document, number, Some(&own));
        let mut known = self.known();
        match &answer {
            Write::Written(_) => {
                if let Some(own) = &mut known.own {
                    own.settled = true;
                }
            }
            // It may have landed: the next look tells.
            Write::Unknown(_) => {}
            _ => known.own = None,
        }
        Ok(answer)
    }

    /// A later write of the own activation.
    /// See docs/safety.md R7.
    fn renew(&self, expected: Version, record: &Record, holder: &Holder) -> Result<Write, Write> {
        let _announced = self.holds.writing();
        let _lock = self.write_lock()?;
        let stored = self.expect(expected)?;
        let own = self.known().own.clone().filter(|own| own.activation == holder.activation);
        let Some(own) = own else { return Err(Write::Conflict) };
        // Whoever deletes or replaces the lock file makes a second lock, which somebody else may win.
        match Inode::of_path(&self.paths.lock) {
            Ok(Some(inode)) if inode == own.inode => {}
            Ok(_) => {
                let why = format!("lock file was deleted or replaced while it was held: {:?}", self.paths.lock);
                return Err(Write::Lost(why));
            }
            Err(error) => return Err(denied("look at the lock file", &error)),
        }
        let number = self.next_number(stored.as_ref(), expected)?;
        let token = stored.as_ref().and_then(|stored| match &stored.document.record.claim {
            Claim::Held(old) if old.activation == own.activation => old.token,
            _ => None,
        });
        let mut document = base(stored);
        document.record = record.clone();
        if let Some(token) = token {
            fill_token(&mut document, token);
        }
        let _record = self.with_record();
        Ok(self.store(document, number, Some(&own)))
    }

    /// The last write of an activation: the own one, or one that the record still names.
    fn release(&self, expected: Version, record: &Record, release: &Release, why: &str) -> Result<Write, Write> {
        let activation = release.activation;
        let _announced = self.holds.writing();
        let _lock = self.write_lock()?;
        let stored = self.expect(expected)?;
        let named = stored.as_ref().is_some_and(|stored| match &stored.document.record.claim {
            Claim::Held(old) => old.activation == activation,
            Claim::Released(old) => old.activation == activation,
            Claim::Vacant(_) | Claim::Foreign(_) => false,
        });
        if !named && !self.known().owns(activation) {
            return Err(Write::Denied(format!("activation {activation} is not the one that holds the lock")));
        }
        let number = self.next_number(stored.as_ref(), expected)?;
        let mut document = base(stored);
        let token = token_of(&document);
        history::ended(&mut document.history, token, &release.member.name, why, unix_us());
        document.record = record.clone();
        let _record = self.with_record();
        let answer = self.store(document, number, None);
        if matches!(answer, Write::Written(_)) {
            let mut known = self.known();
            if known.own.as_ref().is_some_and(|own| own.activation == activation) {
                known.own = None;
                drop(known);
                self.queue.requeue();
            }
        }
        Ok(answer)
    }

    /// The number of a write that is not an acquiring one.
    fn next_number(&self, stored: Option<&Stored>, expected: Version) -> Result<u64, Write> {
        // A record that somebody deleted is not counted from the start again.
        next(if stored.is_some() { expected.number } else { self.known().largest })
    }

    /// Stores a document under the write lock, and remembers it.
    fn store(&self, mut document: Document, number: u64, own: Option<&Own>) -> Write {
        document.version = Some(number);
        if let Some(Err(error)) = own.map(|own| own.keepers.store(&mut document)) {
            return Write::Denied(format!("failed to write the keepers as JSON: {error}"));
        }
        match store::replace_record(&self.paths, &document) {
            Ok(fingerprint) => {
                let mut known = self.known();
                known.largest = known.largest.max(number);
                known.glance.fingerprint = Some(fingerprint);
                known.history = document.history;
                Write::Written(Version { incarnation: 0, number })
            }
            Err(StoreError::Before(error)) => denied("store the record", &error),
            Err(StoreError::Encode(error)) => Write::Denied(error.to_string()),
            Err(StoreError::After(error)) => Write::Unknown(format!("failed to store the record for certain: {error}")),
        }
    }
}

/// Nothing was stored, for certain.
fn denied(action: &str, error: &io::Error) -> Write {
    Write::Denied(format!("failed to {action}: {error}"))
}

fn next(number: u64) -> Result<u64, Write> {
    let exhausted = || Write::Denied("failed to count on: the lock's version is the largest that there is".into());
    number.checked_add(1).ok_or_else(exhausted)
}

/// The document to write into: what others stored beside the record survives.
fn base(stored: Option<Stored>) -> Document {
    stored.map(|stored| stored.document).unwrap_or_else(|| Document {
        record: Record {
            claim: Claim::Foreign(election::Foreign { holder: None, fingerprint: 0, why: String::new() }),
            lease: Duration::ZERO,
            slots: 1,
            paused_until_unix_ms: None,
        },
        version: None,
        history: Vec::new(),
        backend: Map::new(),
        unknown: Map::new(),
    })
}

fn token_of(document: &Document) -> Option<u64> {
    match &document.record.claim {
        Claim::Held(holder) => holder.token.map(|token| token.0),
        _ => None,
    }
}

/// Here the token is known before the write, other than in stores that only name it in their answer.
fn fill_token(document: &mut Document, token: Token) {
    if let Claim::Held(holder) = &mut document.record.claim {
        holder.token.get_or_insert(token);
    }
}

/// The guard's own release, written when it has the proof: it is there even when the elector is not.
/// See docs/safety.md R4.
///
/// `why` is one sentence for the history.
///
/// Does nothing, and answers nothing, unless the record is held by `activation`. An error of kind `TimedOut` says that
/// another write was in the way: the guard tries again, and must not be kept from answering its elector meanwhile.
pub fn release_after_proof(
    path: &Path,
    activation: Activation,
    proof: Proof,
    successor: Option<String>,
    why: &str,
) -> io::Result<Option<Version>> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let paths = Paths::of(path).ok_or_else(|| invalid(format!("{path:?} names no file")))?;
    let _lock = WriteLock::take(&paths, RELEASE_LOCK_LIMIT)?;
    let Some(Stored { mut document, .. }) = store::read_record(&paths)? else { return Ok(None) };
    let (Claim::Held(holder), Some(version)) = (&document.record.claim, document.version) else { return Ok(None) };
    if holder.activation != activation {
        return Ok(None);
    }
    let number = version.checked_add(1).ok_or_else(|| invalid("the version is the largest that there is".into()))?;
    let (member, attempt): (_, Attempt) = (holder.member.clone(), holder.attempt);
    let token = token_of(&document);
    history::ended(&mut document.history, token, &member.name, why, unix_us());
    document.record.claim = Claim::Released(Release { member, activation, attempt, proof, successor });
    document.version = Some(number);
    match store::replace_record(&paths, &document) {
        Ok(_) => Ok(Some(Version { incarnation: 0, number })),
        Err(StoreError::Before(error) | StoreError::After(error)) => Err(error),
        Err(StoreError::Encode(error)) => Err(invalid(error.to_string())),
    }
}
