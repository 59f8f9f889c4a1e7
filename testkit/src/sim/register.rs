//! The lock in memory: one register with versions, as every store shows it.

use std::collections::VecDeque;

use election::{Evidence, Record, Seen, Version, Write};

/// How many earlier states can be shown or restored.
const PAST_MAX: usize = 48;

/// A versioned register with compare-and-set. Numbers grow over all incarnations, as in a real store.
#[derive(Clone, Debug, Default)]
pub struct Register {
    incarnation: u64,
    number: u64,
    record: Option<Record>,
    past: VecDeque<(Version, Option<Record>)>,
}

impl Register {
    /// The version that a write must quote now.
    pub fn version(&self) -> Version {
        match &self.record {
            Some(_) => Version { incarnation: self.incarnation, number: self.number },
            None => Version::ABSENT,
        }
    }

    /// What is stored.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// One look at the present.
    pub fn read(&self) -> Seen {
        Seen { version: self.version(), record: self.record.clone(), evidence: Evidence::None }
    }

    /// One look at what was there `back` changes ago, as far as that is known.
    pub fn read_past(&self, back: usize) -> Seen {
        match self.past.len().checked_sub(back).and_then(|index| self.past.get(index)) {
            Some((version, record)) => Seen { version: *version, record: record.clone(), evidence: Evidence::None },
            None => self.read(),
        }
    }

    /// One conditional write.
    pub fn write(&mut self, expected: Version, record: &Record) -> Write {
        match (&self.record, expected == self.version()) {
            (_, true) => Write::Written(self.put(record.clone())),
            (Some(_), false) => Write::Conflict,
            (None, false) => Write::Gone,
        }
    }

    /// Stores whatever was there before: a create where the lock is absent.
    pub fn put(&mut self, record: Record) -> Version {
        self.keep();
        if self.record.is_none() {
            self.incarnation += 1;
        }
        self.number += 1;
        self.record = Some(record);
        self.version()
    }

    /// Deletes the lock.
    pub fn delete(&mut self) {
        self.keep();
        self.number += 1;
        self.record = None;
    }

    /// Goes back to what was stored `back` changes ago, versions included. False where that is not known.
    pub fn rewind(&mut self, back: usize) -> bool {
        let Some(index) = self.past.len().checked_sub(back) else { return false };
        let Some((version, record)) = self.past.get(index).cloned() else { return false };
        if record.is_none() || back == 0 {
            return false;
        }
        self.past.truncate(index);
        self.incarnation = version.incarnation;
        self.number = version.number;
        self.record = record;
        true
    }

    fn keep(&mut self) {
        if self.past.len() == PAST_MAX {
            self.past.pop_front();
        }
        self.past.push_back((self.version(), self.record.clone()));
    }
}
