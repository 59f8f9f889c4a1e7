//! The only module with `unsafe`: fork and exec behind a gate, the page with the deadline, raw waits and descriptors.
#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::io::{self, ErrorKind, IoSlice};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use election::Instant;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, SealFlag, fcntl};
use nix::libc::{self, c_char, c_int};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MlockAllFlags, ProtFlags, mlockall, mmap, munmap};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use tokio::io::unix::AsyncFd;

use super::Ending;

/// The lowest number that the workload's lock descriptor gets, out of the way of what shells and programs use.
pub(super) const LOCK_DESCRIPTOR_MIN: RawFd = 200;

/// As long as the word may be with which a gate opens.
const WORD_BYTES_MAX: usize = 32;

/// The highest signal number of Linux on x86-64.
const SIGNAL_MAX: c_int = 64;

const PAGE_BYTES: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// One page of memory that elector and guard share: the instant of SIGKILL, in nanoseconds of CLOCK_BOOTTIME.
///
/// The guard reads it at the last moment, so an extension counts even when the socket between the two is stuck.
#[derive(Debug)]
pub(super) struct Page {
    address: NonNull<AtomicU64>,
    writable: bool,
}

// SAFETY: the page is only ever reached through an atomic, and `Page` owns the mapping.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    /// A new page, writable, and the memfd to hand to the guard. Sealed: nobody can shrink it under a reader, and nobody
    /// else can write to it.
    pub(super) fn create() -> io::Result<(Self, OwnedFd)> {
        let memfd = memfd_create("soloist-deadline", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let bytes = i64::try_from(PAGE_BYTES.get()).map_err(io::Error::other)?;
        nix::unistd::ftruncate(&memfd, bytes)?;
        let page = Self::map(memfd.as_fd(), true)?;
        // Linux before 5.1 does not know it; there the other side is trusted not to.
        let _ = fcntl(&memfd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE));
        fcntl(&memfd, FcntlArg::F_ADD_SEALS(size_seals() | SealFlag::F_SEAL_SEAL))?;
        Ok((page, memfd))
    }

    /// The page behind a memfd that somebody else made, for reading.
    pub(super) fn open(memfd: BorrowedFd<'_>) -> io::Result<Self> {
        let seals = SealFlag::from_bits_truncate(fcntl(memfd, FcntlArg::F_GET_SEALS)?);
        let bytes = nix::sys::stat::fstat(memfd)?.st_size;
        let large_enough = usize::try_from(bytes).is_ok_and(|bytes| bytes >= PAGE_BYTES.get());
        if !seals.contains(size_seals()) || !large_enough {
            return Err(io::Error::new(ErrorKind::InvalidData, "failed to trust the page: not sealed"));
        }
        Self::map(memfd, false)
    }

    fn map(memfd: BorrowedFd<'_>, writable: bool) -> io::Result<Self> {
        let access = if writable { ProtFlags::PROT_READ | ProtFlags::PROT_WRITE } else { ProtFlags::PROT_READ };
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let address = unsafe { mmap(None, PAGE_BYTES, access, MapFlags::MAP_SHARED, memfd, 0)? };
        Ok(Self { address: address.cast(), writable })
    }

    /// The instant of SIGKILL.
    pub(super) fn load(&self) -> Instant {
        // SAFETY: the mapping lives as long as `self`, is page-aligned and at least eight bytes long, and its size is
        // sealed. On x86-64 an atomic load only reads, so a read-only mapping will do.
        Instant::from_nanos(unsafe { self.address.as_ref() }.load(Ordering::SeqCst))
    }

    /// Moves the instant of SIGKILL. Does nothing on a page opened for reading.
    pub(super) fn store(&self, kill_at: Instant) {
        if self.writable {
            // SAFETY: as in `load`, and the mapping is writable.
            unsafe { self.address.as_ref() }.store(kill_at.as_nanos(), Ordering::SeqCst);
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: `map` made exactly this mapping, and no reference into it outlives a call of `load` or `store`.
        let _ = unsafe { munmap(self.address.cast(), PAGE_BYTES.get()) };
    }
}

fn size_seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

/// A command line and environment in the form that exec wants, made before fork: after it nothing may allocate.
#[derive(Debug)]
pub(super) struct Image {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// The one variable whose value comes through the gate: `NAME=`, then room for it, all zero.
    blank: Vec<u8>,
}

impl Image {
    /// Fails when the command is empty or an argument holds a NUL byte. Variables that hold one are left out. The value
    /// of the variable `blank` comes when the gate is opened.
    pub(super) fn new(
        command: Vec<OsString>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        blank: &str,
    ) -> io::Result<Self> {
        let arguments: Result<Vec<_>, _> =
            command.into_iter().map(|argument| CString::new(argument.into_vec())).collect();
        let arguments = arguments?;
        if arguments.is_empty() {
            return Err(io::Error::new(ErrorKind::NotFound, "failed to find a command: none is given"));
        }
        let entry = |(name, value): (OsString, OsString)| {
            let mut entry = name;
            entry.push("=");
            entry.push(value);
            CString::new(entry.into_vec()).ok()
        };
        let mut blank = format!("{blank}=").into_bytes();
        blank.resize(blank.len() + WORD_BYTES_MAX + 1, 0);
        Ok(Self { arguments, environment: environment.filter_map(entry).collect(), blank })
    }
}

/// A child that waits at the gate and has executed nothing of the user's yet.
#[derive(Debug)]
pub(super) struct Gated {
    /// Its PID, and its process group's.
    pub pid: i32,
    /// Whether it is in the cgroup that was named.
    pub placed: bool,
    /// Says how exec went: end of file when it succeeded, else an errno.
    outcome: OwnedFd,
    gate: OwnedFd,
}

/// The first byte of what opens a gate: whether the lock comes along.
const UNLOCKED: u8 = b'u';
const LOCKED: u8 = b'l';

impl Gated {
    /// Lets the child go on to exec, with this value for the variable that was left blank, and with the lock.
    pub(super) fn open(self, word: &str, lock: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
        if word.is_empty() || word.len() > WORD_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidInput, "failed to open the gate: no word, or a long one"));
        }
        let kind = [if lock.is_some() { LOCKED } else { UNLOCKED }];
        let parts = [IoSlice::new(&kind), IoSlice::new(word.as_bytes())];
        let lock: Vec<RawFd> = lock.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&lock)];
        let controls: &[ControlMessage] = if lock.is_empty() { &[] } else { &rights };
        // Whoever has stopped it meanwhile has stopped nothing of the user's: it must not hold the lock and do nothing.
        let _ = send_signal(self.pid, libc::SIGCONT);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.gate.as_raw_fd(), &parts, controls, flags, None)?;
        Ok(self.outcome)
    }
}

/// Everything that the child needs between fork and exec, as plain numbers and pointers.
struct Passage {
    guard: libc::pid_t,
    gate: RawFd,
    gate_opener: RawFd,
    outcome: RawFd,
    /// Room for the word.
    word: *mut u8,
    arguments: *const *const c_char,
    environment: *const *const c_char,
}

/// Forks the workload up to its gate. If the caller dies first, the gate never opens and the child is gone.
///
/// The child is born in `cgroup` where the kernel can do that; elsewhere it is for the caller to move it.
pub(super) fn fork_gated(image: &mut Image, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Gated> {
    let (gate, gate_opener) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let (outcome, outcome_writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (arguments, mut environment) = (pointers(&image.arguments), pointers(&image.environment));
    let blank = image.blank.as_mut_ptr();
    environment.insert(0, blank.cast_const().cast());
    let word_at = image.blank.len() - WORD_BYTES_MAX - 1;
    let passage = Passage {
        guard: nix::unistd::getpid().as_raw(),
        gate: gate.as_raw_fd(),
        gate_opener: gate_opener.as_raw_fd(),
        outcome: outcome_writer.as_raw_fd(),
        word: blank.wrapping_add(word_at),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
    };
    // SAFETY: the guard has one thread, so the child's copy of memory is consistent; it only calls functions that are
    // async-signal-safe and ends in exec or _exit.
    let born = cgroup.and_then(|cgroup| unsafe { fork_into(cgroup) }.ok());
    let pid = match born {
        Some(pid) => pid,
        // SAFETY: as above.
        None => Errno::result(unsafe { libc::fork() })?,
    };
    if pid == 0 {
        // SAFETY: this is the child; all that `passage` points to was made before fork and lives on in the copy.
        unsafe { pass(&passage) }
    }
    // Both sides do it, so that the group is there whoever comes first.
    // SAFETY: plain system call on the own child, which has not executed anything yet.
    unsafe { libc::setpgid(pid, pid) };
    Ok(Gated { pid, placed: born.is_some(), outcome, gate: gate_opener })
}

/// What clone3(2) takes, up to the version that knows cgroups (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// As fork(2), but the child is born in `cgroup`. To move it there afterwards would wait for a grace period of the
/// kernel, which is 10 ms and more, and half of a handover.
///
/// # Safety
/// As fork(2) in a process with one thread. In addition the C library does not know of the child, which may only call
/// functions that ask the kernel and not the library who they are.
unsafe fn fork_into(cgroup: BorrowedFd<'_>) -> nix::Result<libc::pid_t> {
    /// The C library's constant has too few bits.
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let arguments = CloneArguments {
        flags: CLONE_INTO_CGROUP,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
        ..CloneArguments::default()
    };
    // SAFETY: the structure is as long as is said and outlives the call; without a stack of its own and without shared
    // memory the child goes on here in a copy, as after fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) };
    // A PID always fits.
    Errno::result(pid).map(|pid| pid as libc::pid_t)
}

/// The child: from fork through the gate to exec.
///
/// # Safety
/// Only in a freshly forked child, with pointers to NULL-terminated arrays of C strings.
unsafe fn pass(passage: &Passage) -> ! {
    // SAFETY: only async-signal-safe calls with valid arguments follow, and none of them allocates.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // The guard may have died before the line above: then nobody would ever send that signal.
        if libc::getppid() != passage.guard {
            libc::_exit(127);
        }
        // Else the child itself would keep the gate from ever reporting that the guard is gone.
        libc::close(passage.gate_opener);
        reset_dispositions();
        match wait_at_gate(passage) {
            Some(Opened::Free) => {}
            Some(Opened::Locked(lock)) if keep(lock) => {}
            Some(Opened::Locked(_)) => fail(passage),
            None => libc::_exit(127),
        }
        unblock_signals();
        libc::execvpe(*passage.arguments, passage.arguments, passage.environment);
        fail(passage)
    }
}

/// How a gate was opened.
enum Opened {
    Free,
    /// With the lock, under this number; negative where it could not be taken over.
    Locked(RawFd),
}

/// Waits until the gate is opened, and puts the word where it belongs. Nothing if it never will be.
///
/// # Safety
/// Only in a freshly forked child: the room for the word is long enough, and nobody else looks at it.
unsafe fn wait_at_gate(passage: &Passage) -> Option<Opened> {
    /// Room for the header and one descriptor, aligned as the header must be.
    #[repr(C, align(8))]
    struct Control([u8; 32]);

    let mut kind = 0u8;
    let mut control = Control([0; 32]);
    // SAFETY: all pointers are to locals and to the room for the word, with their lengths; zeros are valid in the
    // structures of the C library; what is read from the control data is inside of it, as the kernel has filled it in.
    unsafe {
        let mut parts = [
            libc::iovec { iov_base: (&raw mut kind).cast(), iov_len: 1 },
            libc::iovec { iov_base: passage.word.cast(), iov_len: WORD_BYTES_MAX },
        ];
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len();
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len();
        let read = loop {
            let read = libc::recvmsg(passage.gate, &raw mut message, libc::MSG_CMSG_CLOEXEC);
            if read >= 0 || *libc::__errno_location() != libc::EINTR {
                break read;
            }
        };
        match (read, kind) {
            (2.., UNLOCKED) => Some(Opened::Free),
            (2.., LOCKED) => {
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                let is_there = !header.is_null()
                    && (*header).cmsg_type == libc::SCM_RIGHTS
                    && (*header).cmsg_len >= libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
                Some(Opened::Locked(if is_there {
                    libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()
                } else {
                    -1
                }))
            }
            _ => None,
        }
    }
}

/// Duplicates the lock descriptor to one that survives exec. Says whether that worked.
///
/// # Safety
/// Async-signal-safe; for use after fork.
unsafe fn keep(lock: RawFd) -> bool {
    // SAFETY: fcntl on a number has no memory effects.
    unsafe {
        // A limit on descriptors below 200 must not cost the proof: any number is better than none.
        libc::fcntl(lock, libc::F_DUPFD, LOCK_DESCRIPTOR_MIN) >= 0 || libc::fcntl(lock, libc::F_DUPFD, 3) >= 0
    }
}

/// Tells the guard the errno of what failed last, and ends.
///
/// # Safety
/// Only in a freshly forked child.
unsafe fn fail(passage: &Passage) -> ! {
    // SAFETY: the buffer is a local integer of the given size.
    unsafe {
        let errno: c_int = *libc::__errno_location();
        libc::write(passage.outcome, (&raw const errno).cast(), size_of::<c_int>());
        libc::_exit(if errno == libc::ENOENT { 127 } else { 126 })
    }
}

/// Default dispositions: what a program expects to start with. All signals are blocked as yet, so that none acts.
///
/// # Safety
/// Async-signal-safe; for use after fork.
unsafe fn reset_dispositions() {
    // SAFETY: the kernel's sigaction is four words, all zero for SIG_DFL without flags; it refuses numbers that cannot
    // be changed, harmlessly. Asked directly, because the C library keeps two signals to itself.
    unsafe {
        let default = [0u64; 4];
        for signal in 1..=SIGNAL_MAX {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), size_of::<u64>());
        }
    }
}

/// An empty mask: what a program expects to start with, too.
///
/// # Safety
/// Async-signal-safe; for use after fork.
unsafe fn unblock_signals() {
    // SAFETY: the mask is a local, set before it is used.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// How exec went: `None` while it is under way.
pub(super) fn exec_outcome(outcome: &OwnedFd) -> Option<Result<(), Errno>> {
    let mut bytes = [0u8; size_of::<c_int>()];
    match nix::unistd::read(outcome, &mut bytes) {
        Ok(read) if read == bytes.len() => Some(Err(Errno::from_raw(c_int::from_ne_bytes(bytes)))),
        Ok(_) => Some(Ok(())),
        Err(Errno::EAGAIN | Errno::EINTR) => None,
        Err(errno) => Some(Err(errno)),
    }
}

/// What one look at the children says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// There is no child at all (ECHILD): nothing of the tree is left.
    NoChild,
    /// There are children, and none has ended.
    Nothing,
    /// This child has ended, and is reaped.
    Ended(i32, Ending),
}

/// Reaps one child of any kind. `__WALL` finds clone children that do not signal with SIGCHLD, too.
pub(super) fn reap() -> Look {
    match wait_id(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::__WALL) {
        Err(Errno::ECHILD) => Look::NoChild,
        Err(_) => Look::Nothing,
        Ok(None) => Look::Nothing,
        Ok(Some(Waited { pid, code: libc::CLD_EXITED, status })) => Look::Ended(pid, Ending::Code(status)),
        Ok(Some(Waited { pid, status, .. })) => Look::Ended(pid, Ending::Signal(status)),
    }
}

/// The signal that has just stopped the child `pid`, told once.
pub(super) fn stopped_by(pid: i32) -> Option<c_int> {
    let id = libc::id_t::try_from(pid).ok()?;
    let waited = wait_id(libc::P_PID, id, libc::WSTOPPED | libc::WNOHANG | libc::__WALL).ok()??;
    (waited.code == libc::CLD_STOPPED).then_some(waited.status)
}

struct Waited {
    pid: i32,
    code: c_int,
    status: c_int,
}

fn wait_id(kind: libc::idtype_t, id: libc::id_t, flags: c_int) -> Result<Option<Waited>, Errno> {
    // SAFETY: an all-zero siginfo is valid, and tells "no child has changed" by its PID staying 0.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid for the whole call.
    Errno::result(unsafe { libc::waitid(kind, id, &raw mut info, flags) })?;
    // SAFETY: waitid fills in exactly these two fields.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((pid != 0).then_some(Waited { pid, code: info.si_code, status }))
}

/// Receives one packet and the descriptors that come with it. An empty packet is the end of the connection.
pub(super) fn receive(socket: BorrowedFd<'_>, bytes_max: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0u8; bytes_max];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let (read, raw, cut) = {
        let mut parts = [io::IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let rights = message.cmsgs()?.filter_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let cut = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
        (message.bytes, rights.flatten().collect::<Vec<_>>(), cut)
    };
    // SAFETY: the kernel has just installed these descriptors for this process, and nobody else knows them.
    let fds = raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
    if cut {
        return Err(io::Error::new(ErrorKind::InvalidData, "failed to receive a packet: it is too large"));
    }
    bytes.truncate(read);
    Ok((bytes, fds))
}

/// The socket that the elector left open for the guard under this number. Can be taken once.
pub(super) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if number <= libc::STDERR_FILENO || TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "failed to take over a descriptor: not one to be inherited",
        ));
    }
    // SAFETY: fcntl on a number has no memory effects.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and as this is the first act of the process, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes `command` leave `fd` open for the program that it executes, and for no other.
pub(super) fn leave_open(command: &mut Command, fd: BorrowedFd<'_>) {
    let number = fd.as_raw_fd();
    let clear = move || {
        // SAFETY: the number is open in the child, which is a copy of a process that has it open.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop).map_err(io::Error::from)
    };
    // SAFETY: one system call, async-signal-safe.
    unsafe { command.pre_exec(clear) };
}

/// Makes the kernel kill what `command` executes when the thread that starts it ends.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let bind = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // The parent may have died before the line above: then nobody would ever send that signal.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: two system calls, async-signal-safe, and errors that are plain numbers.
    unsafe { command.pre_exec(bind) };
}

/// Gives the program that `command` executes the limit on descriptors that this process was started with.
pub(crate) fn restore_descriptor_limit(command: &mut Command) {
    let Some(limit) = crate::descriptors::inherited() else { return };
    let restore = move || rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).map_err(Into::into);
    // SAFETY: one system call on a copy, async-signal-safe.
    unsafe { command.pre_exec(restore) };
}

/// Registers a descriptor with the runtime.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open, under the same number, until it is dropped.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Undoes an ignored SIGCHLD, which is inherited and would let children vanish without a status.
pub(super) fn heed_children() {
    // SAFETY: reads, then perhaps replaces a disposition that holds no handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGCHLD, ptr::null(), &raw mut action);
        if action.sa_sigaction == libc::SIG_IGN {
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(libc::SIGCHLD, &raw const action, ptr::null_mut());
        }
    }
}

/// kill(2) with a plain number: real-time signals have no name in the wrappers.
pub(super) fn send_signal(pid: i32, signal: c_int) -> Result<(), Errno> {
    // SAFETY: plain system call.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Keeps the pages that are touched in memory. Only present mappings: with a small RLIMIT_MEMLOCK, locking future ones
/// would make allocations fail later.
pub(super) fn lock_memory() -> io::Result<()> {
    Ok(mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT))?)
}
