//! Processes by an identity that cannot be reused: PID and start time, within one boot.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use election::Activation;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// One process of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its PID.
    pub pid: i32,
    /// When it started, in ticks since boot.
    pub start_ticks: u64,
}

/// State letter and start time out of `/proc/PID/stat`.
fn stat(pid: i32) -> io::Result<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = fields.split_whitespace();
    let state = fields.next().and_then(|word| word.chars().next());
    let ticks = fields.nth(18).and_then(|word| word.parse().ok());
    state.zip(ticks).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

impl ProcessId {
    /// The process that has this PID now.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, start_ticks: stat(pid)?.1 })
    }

    /// This process.
    pub fn own() -> io::Result<Self> {
        Self::of(nix::unistd::getpid().as_raw())
    }

    /// Whether it runs; a zombie does not.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_ok_and(|(state, ticks)| ticks == self.start_ticks && !matches!(state, 'Z' | 'X'))
    }

    /// Whether it is stopped.
    pub fn is_stopped(&self) -> bool {
        stat(self.pid).is_ok_and(|(state, ticks)| ticks == self.start_ticks && matches!(state, 'T' | 't'))
    }

    /// SIGKILL, and waits for its end. Whether it is gone.
    pub fn kill(&self, limit: Duration) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(true) };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(true) };
        if !self.is_alive() {
            return Ok(true);
        }
        pidfd_send_signal(handle, Signal::KILL)?;
        let end = Instant::now() + limit;
        while self.is_alive() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(!self.is_alive())
    }
}

/// The random id of this boot.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Every visible process that carries this activation in its environment.
pub fn carrying(activation: Activation) -> Vec<ProcessId> {
    let wanted = format!("SOLOIST_ACTIVATION={activation}");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
        })
        .filter_map(|pid| ProcessId::of(pid).ok())
        .collect()
}

/// What a sweep did.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// How many were killed.
    pub killed: usize,
    /// Which would not die.
    pub left: Vec<ProcessId>,
}

/// Kills every visible process of an activation.
pub fn sweep(activation: Activation, limit: Duration) -> Swept {
    let mut swept = Swept::default();
    for process in carrying(activation) {
        match process.kill(limit) {
            Ok(true) => swept.killed += 1,
            _ => swept.left.push(process),
        }
    }
    swept
}
