//! The probe page: where every process of a probe workload writes down that it is alive.
//!
//! One small file a process, its slot. Files of their own need no allocator that a SIGKILL could leave half done, and
//! the page cache keeps what was written whatever happens to the writer. A stamp is one aligned `pwrite` of 16 bytes,
//! so a reader sees an old or a new stamp; should it ever see half of one, then a few microseconds are off.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use soloist::clock;

/// Length of the fixed part of a slot; the name of the member follows it.
const FIXED: usize = 64;
/// Where the two numbers that each stamp changes start: `last`, `stamps`.
const STAMP_AT: usize = 16;

/// The page of one slot of a group: in a group of which only one may be active, that of the first.
pub fn page(folder: &Path, slot: u32) -> PathBuf {
    folder.join(if slot == 1 { "slots".to_owned() } else { format!("slots-{slot}") })
}

/// Which activation a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The fencing token.
    pub token: u64,
    /// The activation's random id.
    pub activation: u128,
    /// The member's name.
    pub member: String,
}

impl Identity {
    /// What soloist told its workload.
    pub fn from_env() -> Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("failed to read {name}"));
        Self::parse(&format!(
            "{},{},{}",
            variable("SOLOIST_FENCING_TOKEN")?,
            variable("SOLOIST_ACTIVATION")?,
            variable("SOLOIST_MEMBER")?
        ))
    }

    /// Reads `TOKEN,ACTIVATION,MEMBER`, as [`Identity::to_argument`] writes it.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, ',');
        let (Some(token), Some(activation), Some(member)) = (parts.next(), parts.next(), parts.next()) else {
            bail!("failed to read the identity {text:?}: expected TOKEN,ACTIVATION,MEMBER");
        };
        Ok(Self {
            token: token.parse().with_context(|| format!("failed to read the fencing token {token:?}"))?,
            activation: u128::from_str_radix(activation, 16)
                .with_context(|| format!("failed to read the activation {activation:?}"))?,
            member: member.to_owned(),
        })
    }

    /// For the command line of a descendant, which may have no environment left to read.
    pub fn to_argument(&self) -> String {
        format!("{},{:032x},{}", self.token, self.activation, self.member)
    }
}

/// What one process wrote about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Which activation it belonged to.
    pub identity: Identity,
    /// Its PID, as it saw itself (in a PID namespace: the inner one).
    pub pid: u32,
    /// What kind of process it was: `main`, `setsid`, ...
    pub label: String,
    /// When it started, in nanoseconds of CLOCK_BOOTTIME.
    pub first: u64,
    /// When it was last seen alive, in nanoseconds of CLOCK_BOOTTIME.
    pub last: u64,
    /// How often it stamped.
    pub stamps: u64,
}

impl Slot {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + self.identity.member.len());
        for number in [self.identity.token, self.first, self.last, self.stamps] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.identity.activation.to_le_bytes());
        bytes.extend_from_slice(&self.pid.to_le_bytes());
        bytes.resize(FIXED, 0);
        bytes.extend_from_slice(self.identity.member.as_bytes());
        bytes
    }

    /// Nothing, if the file is not as long as a slot: its process is just about to write it.
    fn decode(label: &str, bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let member = String::from_utf8_lossy(bytes.get(FIXED..)?).into_owned();
        let activation = u128::from_le_bytes(bytes.get(32..48)?.try_into().ok()?);
        Some(Self {
            identity: Identity { token: number(0)?, activation, member },
            pid: u32::from_le_bytes(bytes.get(48..52)?.try_into().ok()?),
            label: label.to_owned(),
            first: number(8)?,
            last: number(STAMP_AT)?,
            stamps: number(24)?,
        })
    }
}

/// The writing end: a slot of one's own.
#[derive(Debug)]
pub struct Stamper {
    file: File,
    stamps: u64,
}

impl Stamper {
    /// Takes a new slot for this process, alive since `born`.
    pub fn claim(page: &Path, identity: &Identity, label: &str, born: u64) -> Result<Self> {
        let pid = std::process::id();
        let name = format!("{}-{pid}-{label}", identity.token);
        Self::open(page, &name, &Slot { identity: identity.clone(), pid, ..blank(label, born) })
    }

    /// Goes on with the slot `name`, which short-lived processes of one activation fill one after the other, so that a
    /// fork storm does not leave thousands of files.
    pub fn share(page: &Path, identity: &Identity, name: &str, born: u64) -> Result<Self> {
        let path = page.join(format!("{}-0-{name}", identity.token));
        match read_slot(&path) {
            Some(slot) => {
                let file = OpenOptions::new().write(true).open(&path).context("failed to open a shared slot")?;
                Ok(Self { file, stamps: slot.stamps })
            }
            None => Self::claim_shared(page, identity, name, born),
        }
    }

    fn claim_shared(page: &Path, identity: &Identity, name: &str, born: u64) -> Result<Self> {
        let slot = Slot { identity: identity.clone(), pid: 0, ..blank(name, born) };
        Self::open(page, &format!("{}-0-{name}", identity.token), &slot)
    }

    fn open(page: &Path, name: &str, slot: &Slot) -> Result<Self> {
        let path = page.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("failed to create the slot {}", path.display()))?;
        file.write_all_at(&slot.encode(), 0).with_context(|| format!("failed to fill the slot {}", path.display()))?;
        Ok(Self { file, stamps: slot.stamps })
    }

    /// Writes down that this process is alive now. The clock is read first: a stamp never claims a later instant than
    /// one at which the process ran.
    pub fn stamp(&mut self) -> Result<()> {
        self.stamps += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&now().to_le_bytes());
        bytes[8..].copy_from_slice(&self.stamps.to_le_bytes());
        self.file.write_all_at(&bytes, STAMP_AT as u64).context("failed to stamp")
    }
}

fn blank(label: &str, born: u64) -> Slot {
    let identity = Identity { token: 0, activation: 0, member: String::new() };
    Slot { identity, pid: 0, label: label.to_owned(), first: born, last: born, stamps: 1 }
}

/// CLOCK_BOOTTIME in nanoseconds: what slots hold.
pub fn now() -> u64 {
    clock::now().as_nanos()
}

fn read_slot(path: &Path) -> Option<Slot> {
    let label = path.file_name()?.to_str()?.splitn(3, '-').nth(2)?;
    Slot::decode(label, &fs::read(path).ok()?)
}

/// All slots of a page, in no order. A page that does not exist is empty.
pub fn read_page(page: &Path) -> Vec<Slot> {
    let Ok(entries) = fs::read_dir(page) else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| read_slot(&entry.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { token: 7, activation: 0xabc, member: "a,b-c".to_owned() }
    }

    #[test]
    fn identity_survives_the_command_line() {
        assert_eq!(Identity::parse(&identity().to_argument()).unwrap(), identity());
        assert!(Identity::parse("7,xyz,a").is_err());
        assert!(Identity::parse("7,ab").is_err());
    }

    #[test]
    fn a_slot_reads_back_what_was_stamped() {
        let page = tempfile::tempdir().unwrap();
        let born = now();
        let mut stamper = Stamper::claim(page.path(), &identity(), "set-sid", born).unwrap();
        stamper.stamp().unwrap();
        let slots = read_page(page.path());
        assert_eq!(slots.len(), 1);
        let slot = &slots[0];
        assert_eq!((slot.identity.clone(), slot.label.as_str()), (identity(), "set-sid"));
        assert_eq!((slot.first, slot.stamps, slot.pid), (born, 2, std::process::id()));
        assert!(slot.last > born && slot.last <= now());
    }

    #[test]
    fn a_slot_that_is_not_written_yet_is_not_there() {
        let page = tempfile::tempdir().unwrap();
        fs::write(page.path().join("7-1-main"), [0; 32]).unwrap();
        assert!(read_page(page.path()).is_empty());
        assert!(read_page(&page.path().join("missing")).is_empty());
    }

    #[test]
    fn a_shared_slot_keeps_its_first_stamp() {
        let page = tempfile::tempdir().unwrap();
        Stamper::share(page.path(), &identity(), "storm0", 100).unwrap().stamp().unwrap();
        Stamper::share(page.path(), &identity(), "storm0", 200).unwrap().stamp().unwrap();
        let slots = read_page(page.path());
        assert_eq!((slots.len(), slots[0].first, slots[0].stamps), (1, 100, 3));
    }
}
