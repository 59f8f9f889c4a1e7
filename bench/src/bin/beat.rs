//! The workload of the bench: `beat PAGE PACE_US [--untold]` stamps that it is alive, and dies of whatever signal comes. A program
//! of its own, for a large one takes milliseconds to be executed.
#![forbid(unsafe_code)]

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::stamp::{Identity, Stamper, now};

fn main() -> Result<()> {
    let born = now();
    let mut arguments = std::env::args_os().skip(1);
    let page = arguments.next().context("failed to find the folder for the stamps: none was given")?;
    let pace = arguments.next().context("no pace")?;
    let pace: u64 = pace.to_str().unwrap_or_default().parse().context("failed to read the pace in microseconds")?;
    // Under a tool that hands out no tokens, the later one has the larger number.
    let identity = match arguments.next() {
        Some(_) => Identity { token: born, activation: born.into(), member: "untold".to_owned() },
        None => Identity::from_env()?,
    };
    let mut stamper = Stamper::claim(Path::new(&page), &identity, "main", born)?;
    loop {
        stamper.stamp()?;
        sleep(Duration::from_micros(pace));
    }
}
