//! The record and the counter on disk. What is answered is durable.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::super::codec::{self, Document, EncodeError};
use super::paths::{Inode, Paths, open_to_read};

/// How long a compare-and-set waits for another one.
pub(super) const WRITE_LOCK_LIMIT: Duration = Duration::from_secs(1);
/// How often it looks meanwhile.
const WRITE_LOCK_STEP: Duration = Duration::from_millis(2);
/// As many digits as the largest counter has: the text never changes its length, so that no write can tear it.
const COUNTER_DIGITS: usize = 20;

/// The record file as it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    /// What it says.
    pub document: Document,
    /// Of its bytes.
    pub fingerprint: u64,
}

/// Reads the record, if there is one.
pub(super) fn read_record(paths: &Paths) -> io::Result<Option<Stored>> {
    let Some(file) = open_to_read(&paths.record)? else { return Ok(None) };
    // Room for all that it usually is: growing step by step takes a dozen reads.
    let mut bytes = Vec::with_capacity(4096);
    file.take(codec::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(Stored { document: codec::decode(&bytes), fingerprint: codec::fingerprint(&bytes) }))
}

/// Reads the counter; an empty file has counted nothing yet. InvalidData: it is no counter of ours.
pub(super) fn read_counter(file: &File) -> io::Result<u64> {
    let mut bytes = [0; COUNTER_DIGITS + 2];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // Only NULs: the host crashed between the very first write and its fsync.
    if bytes[..length].iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let counter = std::str::from_utf8(&bytes[..length]).ok().and_then(|text| {
        let digits = text.strip_suffix('\n')?;
        let fits = digits.len() == COUNTER_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| digits.parse().ok()).flatten()
    });
    counter.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the lock file holds no counter"))
}

/// Makes the counter durable, in place: the file is flocked and must stay the same one.
/// See docs/safety.md R11.
pub(super) fn write_counter(file: &File, counter: u64) -> io::Result<()> {
    file.write_all_at(format!("{counter:0width$}\n", width = COUNTER_DIGITS).as_bytes(), 0)?;
    file.sync_all()
}

/// Why a record was not stored, or may not have been.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The old record is still there.
    #[error("{0}")]
    Before(io::Error),
    /// The old record is still there.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The new record may be there, now or after a crash.
    #[error("{0}")]
    After(io::Error),
}

/// Replaces the record whole, durably. To be called under the write lock only. Returns the new fingerprint.
pub(super) fn replace_record(paths: &Paths, document: &Document) -> Result<u64, StoreError> {
    let text = codec::encode(document)?;
    prepare(paths, text.as_bytes()).map_err(StoreError::Before)?;
    fs::rename(&paths.temporary, &paths.record).map_err(StoreError::After)?;
    File::open(&paths.folder).and_then(|folder| folder.sync_all()).map_err(StoreError::After)?;
    Ok(codec::fingerprint(text.as_bytes()))
}

fn prepare(paths: &Paths, bytes: &[u8]) -> io::Result<()> {
    // A writer that crashed may have left one.
    match fs::remove_file(&paths.temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o664).open(&paths.temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // On a full disk it would only be in the way; the error that counts is the first one.
        let _ = fs::remove_file(&paths.temporary);
    }
    written
}

/// Held around every compare-and-set. Closing the file lets go of it.
#[derive(Debug)]
pub(super) struct WriteLock {
    _file: File,
}

impl WriteLock {
    /// Waits for the write lock. An error of kind `TimedOut`: somebody else held it for the whole limit.
    pub fn take(paths: &Paths, limit: Duration) -> io::Result<Self> {
        let end = Instant::now() + limit;
        loop {
            let file = open_write_lock(paths)?;
            match file.try_lock() {
                // Somebody may have deleted the file between open and lock.
                Ok(()) if Inode::of_path(&paths.write)? == Some(Inode::of_file(&file)?) => {
                    return Ok(Self { _file: file });
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if Instant::now() >= end {
                let why = format!("{:?} is busy", paths.write);
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            std::thread::sleep(WRITE_LOCK_STEP);
        }
    }
}

/// Opened for reading only, so that closing it does not look like a change to those who watch the folder.
fn open_write_lock(paths: &Paths) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CREATE | OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::from_raw_mode(0o660);
    Ok(File::from(rustix::fs::open(&paths.write, flags | OFlags::RDONLY, mode)?))
}

#[cfg(test)]
mod tests {
    use election::Record;

    use super::super::super::contract;
    use super::*;

    fn document(record: Record, version: u64) -> Document {
        Document {
            record,
            version: Some(version),
            history: Vec::new(),
            backend: Default::default(),
            unknown: Default::default(),
        }
    }

    fn paths(folder: &tempfile::TempDir) -> Paths {
        Paths::of(&folder.path().join("app.lock")).unwrap()
    }

    #[test]
    fn the_counter_is_written_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = super::super::paths::open_lock(&paths(&folder)).unwrap();
        assert_eq!(read_counter(&file).unwrap(), 0);
        file.set_len(21).unwrap();
        assert_eq!(read_counter(&file).unwrap(), 0);
        for counter in [1, 9, 10, u64::MAX, 3] {
            write_counter(&file, counter).unwrap();
            assert_eq!(read_counter(&file).unwrap(), counter);
            assert_eq!(file.metadata().unwrap().len(), 21);
        }
    }

    #[test]
    fn what_is_no_counter_is_no_counter() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(&folder);
        for text in ["1\n", "00000000000000000001", "+0000000000000000001\n", "99999999999999999999\n", " \n"] {
            fs::write(&paths.lock, text).unwrap();
            let file = File::open(&paths.lock).unwrap();
            assert_eq!(read_counter(&file).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text:?}");
        }
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_record() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(&folder);
        let old = document(contract::held(1, 1), 1);
        replace_record(&paths, &old).unwrap();
        // What a crash leaves: the whole of the next record, or a part of it.
        let next = codec::encode(&document(contract::held(2, 1), 2)).unwrap();
        for left in [next.as_str(), &next[..20], ""] {
            fs::write(&paths.temporary, left).unwrap();
            assert_eq!(read_record(&paths).unwrap().unwrap().document, old);
        }
        let last = document(contract::held(3, 1), 3);
        replace_record(&paths, &last).unwrap();
        assert_eq!(read_record(&paths).unwrap().unwrap().document, last);
        assert!(!paths.temporary.exists());
    }

    #[test]
    fn what_fails_before_the_rename_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(&folder);
        fs::create_dir(&paths.temporary).unwrap();
        let failed = replace_record(&paths, &document(contract::held(1, 1), 1));
        assert!(matches!(failed, Err(StoreError::Before(_))), "{failed:?}");
        fs::remove_dir(&paths.temporary).unwrap();
        fs::create_dir(&paths.record).unwrap();
        let failed = replace_record(&paths, &document(contract::held(1, 1), 1));
        assert!(matches!(failed, Err(StoreError::After(_))), "{failed:?}");
    }

    #[test]
    fn the_write_lock_excludes_and_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(&folder);
        let held = WriteLock::take(&paths, Duration::ZERO).unwrap();
        let start = Instant::now();
        let refused = WriteLock::take(&paths, Duration::from_millis(50));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(50));
        drop(held);
        WriteLock::take(&paths, Duration::ZERO).unwrap();
    }

    #[test]
    fn an_endless_record_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(&folder);
        File::create(&paths.record).unwrap().set_len(1 << 40).unwrap();
        let stored = read_record(&paths).unwrap().unwrap();
        assert!(matches!(stored.document.record.claim, election::Claim::Foreign(_)));
    }
}
