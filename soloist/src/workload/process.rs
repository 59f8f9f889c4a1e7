//! Processes by an identity that cannot be reused: PID and start time, within one boot.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;
use std::{fs, str, thread};

use election::{Activation, Instant};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::clock;

/// How long a sweep waits for one process before it looks at the others again.
const SWEEP_PACE: Duration = Duration::from_millis(5);

/// One process, as long as the host does not reboot.
/// See docs/safety.md R10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its PID.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`), by the host's clock.
    pub start_ticks: u64,
}

impl ProcessId {
    /// The process that has this PID now.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, start_ticks: Stat::read(pid)?.start_ticks })
    }

    /// The calling process.
    pub fn own() -> io::Result<Self> {
        Self::of(nix::unistd::getpid().as_raw())
    }

    /// How long ago it started.
    pub fn age(&self) -> Duration {
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
        let start_ns = u128::from(self.start_ticks.wrapping_add_signed(namespace_ticks())) * 1_000_000_000
            / u128::from(ticks_per_second);
        let start = Instant::from_nanos(u64::try_from(start_ns).unwrap_or(u64::MAX));
        clock::now().since(start)
    }

    /// Whether it can still run code. Says yes when that cannot be told.
    pub fn is_alive(&self) -> bool {
        match Stat::read(self.pid) {
            Ok(stat) if stat.start_ticks != self.start_ticks => false,
            // A leader that has left its threads behind looks like a zombie, too.
            Ok(stat) => !stat.is_dead() || has_live_thread(self.pid),
            Err(error) if is_gone(&error) => is_hidden(self.pid),
            Err(_) => true,
        }
    }

    /// Whether it is stopped, by a signal or by a debugger.
    pub fn is_stopped(&self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| stat.start_ticks == self.start_ticks && matches!(stat.state, b'T' | b't'))
    }

    /// Sends SIGKILL and waits for the end, at most `limit`. True when it is gone.
    pub fn kill(&self, limit: Duration) -> io::Result<bool> {
        let Some(pidfd) = self.open()? else { return Ok(true) };
        match pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) => wait_for(&pidfd, limit),
            Err(Errno::SRCH) => Ok(true),
            Err(errno) => Err(failed(&format!("kill process {}", self.pid), errno.into())),
        }
    }

    /// Waits for its end at most `limit`. True when it is gone.
    pub fn wait_gone(&self, limit: Duration) -> io::Result<bool> {
        match self.open()? {
            Some(pidfd) => wait_for(&pidfd, limit),
            None => Ok(true),
        }
    }

    /// A pidfd of it; nothing when it is gone.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(failed(&format!("open a pidfd of process {}", self.pid), errno.into())),
        };
        // The descriptor is of whoever had the PID just now; only the start time tells who that is.
        match Self::of(self.pid) {
            Ok(now) => Ok((now == *self).then_some(pidfd)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    /// One letter: R, S, D, T, Z ...
    pub state: u8,
    /// The parent's PID.
    pub parent: i32,
    /// The process group.
    pub group: i32,
    /// Field 22.
    pub start_ticks: u64,
}

impl Stat {
    pub(super) fn read(pid: i32) -> io::Result<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat"))?)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("failed to understand /proc/{pid}/stat")))
    }

    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// The command's name stands in parentheses and may itself contain any byte: fields are counted from the last one.
    fn parse(text: &[u8]) -> Option<Self> {
        let end_of_name = text.iter().rposition(|byte| *byte == b')')?;
        let mut fields = str::from_utf8(text.get(end_of_name + 1..)?).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let start_ticks = fields.nth(16)?.parse::<u64>().ok()?;
        Some(Self { state, parent, group, start_ticks: start_ticks.wrapping_add_signed(-namespace_ticks()) })
    }
}

/// How far the own time namespace is ahead of the host's clock. The kernel adds it to the start of whichever process is
/// looked at, so a member elsewhere would take the same process for another one.
fn namespace_ticks() -> i64 {
    static TICKS: OnceLock<i64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        // Not there: a kernel without time namespaces.
        let text = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        boottime_offset(&text, i64::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100)).unwrap_or(0)
    })
}

/// The offset of CLOCK_BOOTTIME in ticks; the seconds of a clock can be negative, its nanoseconds cannot.
fn boottime_offset(text: &str, ticks_per_second: i64) -> Option<i64> {
    let mut fields = text.lines().find_map(|line| line.strip_prefix("boottime"))?.split_ascii_whitespace();
    let (seconds, nanos) = (fields.next()?.parse::<i64>().ok()?, fields.next()?.parse::<i64>().ok()?);
    Some(seconds * ticks_per_second + nanos * ticks_per_second / 1_000_000_000)
}

/// The random id of this boot of the host.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The variable by which the processes of a standby workload are found: it is started before there is an activation.
pub const MARK: &str = "SOLOIST_TREE";

/// The entry of an environment that names `activation`.
pub(crate) fn entry_of(activation: Activation) -> String {
    format!("SOLOIST_ACTIVATION={activation}")
}

/// All visible processes, other than the caller, whose environment names `activation`.
pub fn carrying(activation: Activation) -> Vec<ProcessId> {
    carrying_any(&[entry_of(activation)])
}

/// The same of any of these entries.
pub(crate) fn carrying_any(entries: &[String]) -> Vec<ProcessId> {
    let own = nix::unistd::getpid().as_raw();
    let carries = |pid: i32| {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|one| is_one_of(entries, one)))
    };
    // The identity is read first: should the PID change hands in between, the kill finds another start time.
    visible()
        .into_iter()
        .filter(|pid| *pid != own)
        .filter_map(|pid| ProcessId::of(pid).ok())
        .filter(|process| carries(process.pid))
        .collect()
}

fn is_one_of(entries: &[String], one: &[u8]) -> bool {
    entries.iter().any(|entry| entry.as_bytes() == one)
}

/// How a sweep ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many processes were found and are gone.
    pub killed: usize,
    /// Which were found and are still there.
    pub left: Vec<ProcessId>,
}

/// Kills every visible process that carries `activation` until a scan finds none, at most for `limit`.
pub fn sweep(activation: Activation, limit: Duration) -> Swept {
    sweep_any(&[entry_of(activation)], limit)
}

/// The same of any of these entries of an environment.
pub(crate) fn sweep_any(entries: &[String], limit: Duration) -> Swept {
    let until = clock::now() + limit;
    let mut seen = HashSet::new();
    loop {
        let found = carrying_any(entries);
        seen.extend(found.iter().copied());
        if found.is_empty() || clock::now() >= until {
            return Swept { killed: seen.len().saturating_sub(found.len()), left: found };
        }
        // All of them first, so that none has time to fork while another one is waited for.
        for process in &found {
            let _ = process.kill(Duration::ZERO);
        }
        let refused = found.iter().filter(|process| process.kill(SWEEP_PACE).is_err()).count();
        if refused > 0 {
            thread::sleep(SWEEP_PACE);
        }
    }
}

/// All PIDs that `/proc` shows.
pub(super) fn visible() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether any thread of `pid` can still run code.
pub(super) fn has_live_thread(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        let text = fs::read(thread.path().join("stat")).unwrap_or_default();
        Stat::parse(&text).is_some_and(|stat| !stat.is_dead())
    })
}

/// Waits until the process behind `pidfd` has ended.
fn wait_for(pidfd: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let until = clock::now() + limit;
    loop {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut fds, timeout_until(until)) {
            Ok(0) if clock::now() >= until => return Ok(false),
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(failed("wait for a process", errno.into())),
        }
    }
}

/// The time left until `until` for poll(2), which counts in milliseconds: rounded up, so that it does not spin.
pub(super) fn timeout_until(until: Instant) -> PollTimeout {
    let left_ms = until.since(clock::now()).as_nanos().div_ceil(1_000_000);
    i32::try_from(left_ms).ok().and_then(|ms| PollTimeout::try_from(ms).ok()).unwrap_or(PollTimeout::MAX)
}

/// `error` with what failed in front.
pub(super) fn failed(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("failed to {what}: {error}"))
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

/// Whether the process exists although `/proc` does not show it (hidepid).
fn is_hidden(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// The children of all threads of `parent`, dead ones included.
pub fn children_of(parent: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let mut children = Vec::new();
    let mut unsupported = false;
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            Err(_) => unsupported |= thread.path().exists(),
        }
    }
    if unsupported {
        // A kernel without CONFIG_PROC_CHILDREN: look at everybody's parent.
        return visible().into_iter().filter(|pid| Stat::read(*pid).is_ok_and(|stat| stat.parent == parent)).collect();
    }
    children
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn sleeper(activation: Option<Activation>) -> Child {
        let mut command = Command::new("sleep");
        command.arg("1000");
        if let Some(activation) = activation {
            command.env("SOLOIST_ACTIVATION", activation.to_string());
        }
        command.spawn().unwrap()
    }

    fn id(child: &Child) -> ProcessId {
        ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap()
    }

    fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let end = clock::now() + LIMIT;
        while !condition() {
            assert!(clock::now() < end, "{what} did not happen");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn names_with_parentheses_and_spaces_are_counted_from_the_last_one() {
        let text = b"77 (a) R 1 (b) S 5 6 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 999 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.group, stat.start_ticks), (b'S', 5, 6, 123_456));
        assert!(Stat::parse(b"77 (x) S 5").is_none());
    }

    #[test]
    fn a_process_is_as_old_as_it_is() {
        let mut child = sleeper(None);
        let young = id(&child).age();
        assert!(young < Duration::from_secs(5), "{young:?}");
        assert!(ProcessId::own().unwrap().age() + Duration::from_millis(20) >= young);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_time_namespace_is_ahead_by_its_offset() {
        let offset = |text| boottime_offset(text, 100);
        assert_eq!(offset("monotonic           1         0\nboottime        86400 990000000\n"), Some(8_640_099));
        assert_eq!(offset("monotonic           1         0\nboottime           -2 500000000\n"), Some(-150));
        assert_eq!(offset(""), None);
    }

    #[test]
    fn the_own_process_is_alive_and_another_start_time_is_not() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive() && !own.is_stopped());
        let former = ProcessId { start_ticks: own.start_ticks + 1, ..own };
        assert!(!former.is_alive());
        assert!(former.kill(Duration::ZERO).unwrap(), "it is gone, and the present owner of the PID is not killed");
    }

    #[test]
    fn stopped_killed_and_unreaped_are_told_apart() {
        let mut child = sleeper(None);
        let id = id(&child);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id.pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
        until("stop", || id.is_stopped());
        assert!(id.is_alive());
        assert!(id.kill(LIMIT).unwrap());
        assert!(!id.is_alive(), "a zombie runs nothing");
        child.wait().unwrap();
        assert!(!id.is_alive());
        assert!(id.kill(LIMIT).unwrap());
    }

    #[test]
    fn a_sweep_kills_who_carries_the_activation_and_nobody_else() {
        let (ours, theirs) = (Activation(0xfeed_0001), Activation(0xfeed_0002));
        let mut children = [sleeper(Some(ours)), sleeper(Some(ours))];
        let mut other = sleeper(Some(theirs));
        until("exec", || carrying(ours).len() == 2 && carrying(theirs).len() == 1);
        assert_eq!(sweep(ours, LIMIT), Swept { killed: 2, left: Vec::new() });
        assert!(id(&other).is_alive());
        assert_eq!(sweep_any(&[entry_of(ours), entry_of(theirs)], LIMIT).killed, 1);
        assert_eq!(sweep(ours, LIMIT), Swept::default());
        for child in children.iter_mut().chain([&mut other]) {
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_boot_has_an_id() {
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
