//! The client of the demo: sends numbers to whoever is active, and remembers which were acknowledged.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::server;

/// After this long without an answer the client looks for another server.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Between two numbers, and between two looks for a server.
const PACE: Duration = Duration::from_millis(1);

/// Sends on a thread of its own.
pub(super) struct Client {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<Vec<u64>>,
}

impl Client {
    pub fn start(folder: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let (path, stopped, counted) = (server::socket_path(folder), Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || work(&path, &stopped, &counted));
        Self { stop, count, thread }
    }

    /// How many numbers have been acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends and returns all numbers that were acknowledged.
    pub fn stop(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn work(path: &PathBuf, stop: &AtomicBool, count: &AtomicU64) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    let mut sequence = 1;
    while !stop.load(Ordering::Relaxed) {
        // Whatever goes wrong: look again for whoever is active now, and send the same number again.
        let _ = talk(path, stop, count, &mut sequence, &mut acknowledged);
        std::thread::sleep(PACE);
    }
    acknowledged
}

fn talk(
    path: &PathBuf,
    stop: &AtomicBool,
    count: &AtomicU64,
    sequence: &mut u64,
    acknowledged: &mut Vec<u64>,
) -> std::io::Result<()> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut answers = BufReader::new(&stream);
    while !stop.load(Ordering::Relaxed) {
        writeln!(&stream, "{sequence}")?;
        let mut answer = String::new();
        if answers.read_line(&mut answer)? == 0 || answer != "ok\n" {
            return Ok(());
        }
        acknowledged.push(*sequence);
        count.fetch_add(1, Ordering::Relaxed);
        *sequence += 1;
        std::thread::sleep(PACE);
    }
    Ok(())
}
