//! The workload of the demo: takes numbers from a client and appends them to the journal.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::journal;
use super::life::Stamper;

/// Between two stamps. The kernel adds some 50 microseconds; busier stamping would steal a processor from the members.
const STAMP_PAUSE: Duration = Duration::from_micros(50);

/// Where the client finds whoever is active.
pub(super) fn socket_path(folder: &Path) -> PathBuf {
    folder.join("active.sock")
}

/// Serves until it is killed, or until the journal is gone.
///
/// # Errors
/// It was not started by soloist, or the folder cannot be used.
pub fn main(folder: &Path) -> Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("failed to read {name}"));
    let token: u64 = variable("SOLOIST_FENCING_TOKEN")?.parse().context("failed to read the fencing token")?;
    let stamper = Stamper::begin(folder, token)?;
    let journal = UnixStream::connect(journal::socket_path(folder)).context("failed to reach the journal")?;
    // Its predecessor is proven gone: nobody else can be listening here.
    let path = socket_path(folder);
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).context("failed to remove the last server's socket");
    }
    let listener = UnixListener::bind(&path).context("failed to listen")?;
    std::thread::spawn(move || {
        while stamper.stamp().is_ok() {
            std::thread::sleep(STAMP_PAUSE);
        }
    });
    let mut lines = BufReader::new(journal.try_clone()?);
    for client in listener.incoming() {
        serve(&client?, token, &journal, &mut lines)?;
    }
    Ok(())
}

/// Passes each number of one client on, and the journal's answer back. A client that goes away is no failure; a
/// journal that does is.
fn serve(client: &UnixStream, token: u64, mut journal: &UnixStream, answers: &mut impl BufRead) -> Result<()> {
    let mut back = client;
    for sequence in BufReader::new(client).lines().map_while(Result::ok) {
        writeln!(journal, "{token} {sequence}").context("failed to reach the journal")?;
        let mut answer = String::new();
        if answers.read_line(&mut answer).context("failed to reach the journal")? == 0 {
            anyhow::bail!("the journal is gone");
        }
        if back.write_all(answer.as_bytes()).is_err() {
            break;
        }
    }
    Ok(())
}
