//! What the threads of a probe do while it stamps.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use testkit::stamp::{Identity, Stamper};

use crate::Arguments;
use crate::family;

/// How long a child of a fork storm lives.
const BRIEF: Duration = Duration::from_millis(5);

/// Touches every page, so that the kernel must find memory for it, and never gives it back.
pub fn allocate(mebibytes: u32) {
    for _ in 0..mebibytes {
        std::hint::black_box(Box::leak(vec![1_u8; 1 << 20].into_boxed_slice()));
    }
}

/// Takes a mebibyte every few milliseconds.
pub fn leak(mebibytes: u32) {
    thread::spawn(move || {
        for _ in 0..mebibytes {
            allocate(1);
            thread::sleep(Duration::from_millis(10));
        }
    });
}

/// Burns all the time that the scheduler gives.
pub fn spin(threads: u32) {
    for _ in 0..threads {
        thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
}

/// Writes to stdout and stderr, more than any pipe holds; a full pipe blocks these threads only.
pub fn flood() {
    let line = [&[b'x'; 4095][..], b"\n"].concat();
    for to_stderr in [false, true] {
        let line = line.clone();
        thread::spawn(move || {
            let write = || {
                if to_stderr { std::io::stderr().write_all(&line) } else { std::io::stdout().write_all(&line) }
            };
            while write().is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        });
    }
}

/// Copies stdin, byte for byte as it comes.
pub fn copy_stdin(to: &Path) -> Result<()> {
    let mut file = File::create(to).with_context(|| format!("failed to create {}", to.display()))?;
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut bytes) {
            if file.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Notes signals as they come. Blocked before any thread starts, so that only the one that waits gets them.
pub fn note_signals(to: &Path) -> Result<()> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH] {
        set.add(signal);
    }
    set.thread_block().context("failed to block the signals to note")?;
    let file = OpenOptions::new().create(true).append(true).open(to);
    let mut file = file.with_context(|| format!("failed to open {}", to.display()))?;
    thread::spawn(move || {
        while let Ok(signal) = set.wait() {
            if writeln!(file, "{signal}").is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Tells each who connects which member this is, one after the other.
pub fn answer(port: u16, member: &str) -> Result<()> {
    let listener =
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("failed to bind {port}"))?;
    let line = format!("{member}\n");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Whoever has left meanwhile does not want to know.
            let _ = stream.write_all(line.as_bytes());
        }
    });
    Ok(())
}

/// Writes and syncs without end. On a frozen file system this thread sleeps uninterruptibly, and so the process stays.
pub fn write_and_sync(path: PathBuf) {
    thread::spawn(move || -> Result<()> {
        let mut file = File::create(&path).context("failed to create the file to write")?;
        loop {
            file.write_all(b"x").context("failed to write")?;
            file.sync_all().context("failed to sync")?;
        }
    });
}

/// Keeps up to `width` short-lived children. They share slots, so that a storm leaves few files.
pub fn storm(arguments: Arguments, identity: Identity, width: u32) {
    for number in 0..width {
        let (arguments, identity) = (arguments.clone(), identity.clone());
        thread::spawn(move || -> Result<()> {
            loop {
                let mut command = family::again(&arguments, &identity, "storm", &[])?;
                let child = command.args(["--brief", &number.to_string()]).spawn();
                child.and_then(|mut child: Child| child.wait()).context("failed to run a child of the storm")?;
            }
        });
    }
}

/// A child of a fork storm.
pub fn live_briefly(mut stamper: Stamper) -> Result<ExitCode> {
    let start = Instant::now();
    while start.elapsed() < BRIEF {
        stamper.stamp()?;
        thread::sleep(Duration::from_micros(200));
    }
    Ok(ExitCode::SUCCESS)
}
