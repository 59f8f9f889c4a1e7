//! The journal: a resource that checks fencing tokens, as a database or a storage array would.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

/// Where servers reach the journal.
pub(super) fn socket_path(folder: &Path) -> PathBuf {
    folder.join("journal.sock")
}

/// One file of lines `token sequence`, and the largest token that has written.
pub(super) struct Journal {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

struct State {
    file: File,
    largest: u64,
    refused: u64,
}

impl Journal {
    /// Creates the journal and serves it on a thread, until the process ends.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("journal");
        let file =
            OpenOptions::new().append(true).create_new(true).open(&path).context("failed to create the journal")?;
        let state = Arc::new(Mutex::new(State { file, largest: 0, refused: 0 }));
        let listener = UnixListener::bind(socket_path(folder)).context("failed to serve the journal")?;
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        Ok(Self { path, state })
    }

    /// How many appends carried a token smaller than one that had been seen.
    pub fn refused(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).refused
    }

    /// The sequence numbers that are stored, read back from the file.
    pub fn sequences(&self) -> Result<BTreeSet<u64>> {
        let text = fs::read_to_string(&self.path).context("failed to read the journal back")?;
        Ok(text.lines().filter_map(|line| parse(line).map(|(_, sequence)| sequence)).collect())
    }
}

fn parse(line: &str) -> Option<(u64, u64)> {
    let (token, sequence) = line.trim().split_once(' ')?;
    Some((token.parse().ok()?, sequence.parse().ok()?))
}

/// Answers each line of one server with `ok` or `refused`.
fn serve(stream: &UnixStream, state: &Mutex<State>) {
    let Ok(mut answers) = stream.try_clone() else { return };
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let Some((token, sequence)) = parse(&line) else { return };
        let stored = append(&mut state.lock().unwrap_or_else(PoisonError::into_inner), token, sequence);
        let answer: &[u8] = if stored { b"ok\n" } else { b"refused\n" };
        if answers.write_all(answer).is_err() {
            return;
        }
    }
}

fn append(state: &mut State, token: u64, sequence: u64) -> bool {
    if token < state.largest {
        state.refused += 1;
        return false;
    }
    state.largest = token;
    writeln!(state.file, "{token} {sequence}").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_token_is_refused_and_leaves_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let mut state = journal.state.lock().unwrap();
        assert!(append(&mut state, 5, 1));
        assert!(append(&mut state, 7, 2));
        assert!(!append(&mut state, 5, 3));
        assert!(append(&mut state, 7, 4));
        drop(state);
        assert_eq!(journal.refused(), 1);
        assert_eq!(journal.sequences().unwrap(), BTreeSet::from([1, 2, 4]));
    }
}
