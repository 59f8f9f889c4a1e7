//! When each server was alive: one small file each, which survives its writer.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::clock;

/// One server's time of being alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub token: u64,
    /// First and last instant at which it ran, in nanoseconds of CLOCK_BOOTTIME.
    pub first: u64,
    pub last: u64,
}

impl Life {
    /// The life that a file tells of; nothing if its server has not written it yet.
    fn read(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_prefix("life-")?;
        let token = name.split('-').next()?.parse().ok()?;
        let bytes: [u8; 16] = fs::read(path).ok()?.try_into().ok()?;
        let (first, last) = bytes.split_at(8);
        let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
        Some(Self { token, first: number(first)?, last: number(last)? })
    }

    /// All lives in a folder.
    pub fn all(folder: &Path) -> Vec<Self> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| Self::read(&entry.path())).collect()
    }
}

/// The writing end.
pub(super) struct Stamper {
    file: File,
    first: u64,
}

impl Stamper {
    /// Begins a life now.
    pub fn begin(folder: &Path, token: u64) -> Result<Self> {
        let first = clock::now().as_nanos();
        // Should two servers ever have the same token, each leaves a life of its own to be counted.
        let path = folder.join(format!("life-{token}-{}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.with_context(|| format!("failed to create {}", path.display()))?;
        let stamper = Self { file, first };
        stamper.stamp()?;
        Ok(stamper)
    }

    /// Writes down that this process runs now. One write of 16 bytes: a reader sees all of it or nothing.
    pub fn stamp(&self) -> Result<()> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.first.to_le_bytes());
        bytes[8..].copy_from_slice(&clock::now().as_nanos().to_le_bytes());
        self.file.write_all_at(&bytes, 0).context("failed to stamp")
    }
}
