//! The workload of the bench: `beat PAGE [--untold]` stamps that it is alive, and dies of whatever signal comes. A program
//! of its own, for a large one takes milliseconds to be executed.
#![forbid(unsafe_code)]

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::stamp::{Identity, Stamper, now};

/// Between two stamps: a gap is known to about a tenth of a millisecond, and a core has nearly nothing to do.
const PACE: Duration = Duration::from_micros(100);

fn main() -> Result<()> {
    let born = now();
    let mut arguments = std::env::args_os().skip(1);
    let page = arguments.next().context("failed to find the folder for the stamps: none was given")?;
    // Under a tool that hands out no tokens, the later one has the larger number.
    let identity = match arguments.next() {
        Some(_) => Identity { token: born, activation: born.into(), member: "untold".to_owned() },
        None => Identity::from_env()?,
    };
    let mut stamper = Stamper::claim(Path::new(&page), &identity, "main", born)?;
    loop {
        stamper.stamp()?;
        sleep(PACE);
    }
}
