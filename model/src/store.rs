//! The versioned register, and writes that the network still holds.

use election::{Claim, Evidence, Foreign, Record, Release, Seen, Version, Write};

use crate::time::LEASE;

/// How many earlier states of the register a restore can go back to.
const PAST_MAX: usize = 4;

/// A write whose sender does not expect an answer any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stray {
    /// The version that must be there.
    pub expected: Version,
    /// What it would store.
    pub record: Record,
    /// The network forgets it after this tick.
    pub until: u16,
}

/// What the present activation's acquiring write replaced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Replaced {
    /// No record, or the mark that there was none.
    Nothing,
    /// Another activation that was not released.
    Held,
    /// A release that names this successor.
    Released(Option<String>),
    /// A record that is not ours.
    Foreign,
}

/// A register that stores one record and changes only by compare-and-set; plus what faults do to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// The present version.
    pub version: Version,
    /// The present record.
    pub record: Option<Record>,
    /// Counts all changes; version numbers come from it.
    revision: u64,
    incarnations: u64,
    /// Earlier states, newest last. Kept only where a restore is among the faults.
    past: Vec<(Version, Record)>,
    keeps_past: bool,
    /// What the holder that is in the record replaced.
    pub replaced: Replaced,
    /// Writes that may still arrive.
    pub strays: Vec<Stray>,
}

impl Store {
    /// A register that holds this release, or nothing.
    pub fn new(release: Option<Release>, keeps_past: bool) -> Self {
        let version = match release {
            Some(_) => Version { incarnation: 1, number: 100 },
            None => Version::ABSENT,
        };
        let record = release.map(|release| Record {
            claim: Claim::Released(release),
            lease: LEASE,
            slots: 1,
            paused_until_unix_ms: None,
        });
        Self {
            version,
            record,
            revision: 100,
            incarnations: 1,
            past: Vec::new(),
            keeps_past,
            replaced: Replaced::Nothing,
            strays: Vec::new(),
        }
    }

    /// A linearizable read.
    pub fn read(&self) -> Seen {
        Seen { version: self.version, record: self.record.clone(), evidence: Evidence::None }
    }

    /// Compare-and-set.
    pub fn write(&mut self, expected: Version, record: Record) -> Write {
        if expected != self.version {
            return if self.record.is_none() { Write::Gone } else { Write::Conflict };
        }
        if let Some(replaced) = self.replaced_by(&record) {
            self.replaced = replaced;
        }
        self.put(record);
        Write::Written(self.version)
    }

    fn replaced_by(&self, record: &Record) -> Option<Replaced> {
        let Claim::Held(next) = &record.claim else { return None };
        match self.record.as_ref().map(|present| &present.claim) {
            None | Some(Claim::Vacant(_)) => Some(Replaced::Nothing),
            Some(Claim::Held(present)) => (present.activation != next.activation).then_some(Replaced::Held),
            Some(Claim::Released(release)) => Some(Replaced::Released(release.successor.clone())),
            Some(Claim::Foreign(_)) => Some(Replaced::Foreign),
        }
    }

    fn put(&mut self, record: Record) {
        self.remember();
        self.revision += 1;
        if self.record.is_none() {
            self.incarnations += 1;
        }
        self.version = Version { incarnation: self.incarnations, number: self.revision };
        self.record = Some(record);
    }

    fn remember(&mut self) {
        let Some(record) = self.record.clone().filter(|_| self.keeps_past) else { return };
        if self.past.len() == PAST_MAX {
            self.past.remove(0);
        }
        self.past.push((self.version, record));
    }

    // === faults ===

    /// Somebody deletes the lock.
    pub fn delete(&mut self) {
        self.remember();
        self.revision += 1;
        self.version = Version::ABSENT;
        self.record = None;
    }

    /// Somebody who is not of the group writes: with a holder, or with none.
    pub fn overwrite(&mut self, holder: Option<&str>) {
        let foreign = Foreign {
            holder: holder.map(str::to_owned),
            fingerprint: self.revision,
            why: "a stranger wrote it".to_owned(),
        };
        self.put(Record { claim: Claim::Foreign(foreign), lease: LEASE, slots: 1, paused_until_unix_ms: None });
    }

    /// The version of `back` changes ago, if it is still known.
    pub fn earlier(&self, back: usize) -> Option<Version> {
        let index = self.past.len().checked_sub(back)?;
        self.past.get(index).map(|(version, _)| *version)
    }

    /// The store comes back with the state of `back` changes ago. With `reuses_numbers` it also forgets which
    /// version numbers it has given out since.
    pub fn rewind(&mut self, back: usize, reuses_numbers: bool) {
        let Some(index) = self.past.len().checked_sub(back) else { return };
        self.past.truncate(index + 1);
        let Some((version, record)) = self.past.pop() else { return };
        self.version = version;
        self.record = Some(record);
        if reuses_numbers {
            self.revision = version.number;
        }
    }

    /// Forgets strays that the network has dropped, and those that can never be stored: a version that has passed
    /// does not come back, except the absence of the lock, and except after a restore.
    pub fn prune(&mut self, tick: u16) {
        let (version, keeps_past) = (self.version, self.keeps_past);
        self.strays.retain(|stray| {
            let possible = stray.expected == version || stray.expected == Version::ABSENT || keeps_past;
            possible && tick <= stray.until
        });
    }
}
