//! A terminal of which a test has the other side.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result};
use nix::pty::{Winsize, openpty};

/// The other side of a terminal: types, and reads what is shown.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// A terminal of so many columns and lines, and the side that programs get.
    pub fn open(columns: u16, lines: u16) -> Result<(Self, OwnedFd)> {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).context("failed to open a terminal")?;
        Ok((Self::new(pty.master)?, pty.slave))
    }

    fn new(side: OwnedFd) -> Result<Self> {
        let keyboard = File::from(side);
        let mut screen = keyboard.try_clone()?;
        let shown = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&shown);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let Ok(mut seen) = seen.lock() else { return };
                seen.extend_from_slice(&bytes[..count]);
            }
        });
        Ok(Self { keyboard, shown })
    }

    /// As somebody at the keyboard would.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        self.keyboard.write_all(text.as_bytes()).context("failed to type")
    }

    /// Everything that was shown so far.
    pub fn shown(&self) -> String {
        self.shown.lock().map(|shown| String::from_utf8_lossy(&shown).into_owned()).unwrap_or_default()
    }

    /// Whether this was shown.
    pub fn shows(&self, text: &str) -> bool {
        self.shown().contains(text)
    }
}
