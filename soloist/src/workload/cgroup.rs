//! A cgroup v2 for each activation, where one is writable.
//!
//! Every elector has a base below its own cgroup and every activation a leaf below that. The leaf exists from before
//! the workload is forked until it is empty. So a leaf that is not there, below a base that still is, proves as much
//! as an empty one.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use election::{Activation, Entropy, Nonce};
use nix::poll::{PollFd, PollFlags};
use nix::unistd::{AccessFlags, eaccess};
use serde::{Deserialize, Serialize};

use super::process::{failed, timeout_until};
use crate::clock;
use crate::entropy::KernelEntropy;

/// Longest time between two looks at a cgroup, in case that a notice is lost.
const LOOK_PACE: Duration = Duration::from_millis(20);

/// The cgroup below which an elector puts its activations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Where it is.
    pub path: PathBuf,
    /// Its inode number: the same path on another mount, or after a reboot, is another cgroup.
    pub inode: u64,
}

impl Base {
    /// One for this process where one is writable; elsewhere the subreapers do what they can.
    pub fn own() -> Option<Self> {
        let [high, low] = [KernelEntropy.bits(), KernelEntropy.bits()];
        match Self::create(Nonce(u128::from(high) << 64 | u128::from(low))) {
            Ok(base) => Some(base),
            Err(error) => {
                tracing::debug!("no cgroup of our own: {error}");
                None
            }
        }
    }

    /// Makes the base of the process with this nonce, and makes sure that it can hold a workload.
    pub fn create(nonce: Nonce) -> io::Result<Self> {
        let own = own_cgroup()?;
        // Processes can only be moved by who may write to the common ancestor.
        eaccess(&own.join("cgroup.procs"), AccessFlags::W_OK)
            .map_err(|errno| cannot("move processes out of", &own, errno.into()))?;
        let path = own.join(format!("soloist-{nonce}"));
        if path.to_str().is_none() {
            return Err(io::Error::new(ErrorKind::InvalidData, "failed to use a cgroup whose path is not UTF-8"));
        }
        fs::create_dir(&path).map_err(|error| cannot("create", &path, error))?;
        let base = fs::metadata(&path).map(|metadata| Self { path: path.clone(), inode: metadata.ino() });
        let probed = base.and_then(|base| base.probe().map(|()| base));
        if probed.is_err() {
            let _ = fs::remove_dir(&path);
        }
        probed
    }

    /// A child can be made, and killed as a whole (Linux 5.14).
    fn probe(&self) -> io::Result<()> {
        let child = self.path.join("probe");
        fs::create_dir(&child).map_err(|error| cannot("create", &child, error))?;
        let killable = fs::metadata(child.join("cgroup.kill"));
        let removed = fs::remove_dir(&child);
        killable.map_err(|error| cannot("find cgroup.kill in", &child, error))?;
        removed.map_err(|error| cannot("remove", &child, error))
    }

    /// Where the cgroup of `activation` is, or would be.
    pub fn leaf(&self, activation: Activation) -> PathBuf {
        self.path.join(activation.to_string())
    }

    /// Makes the cgroup of `activation`. It may be there: a guard that died had made it ready.
    pub fn create_leaf(&self, activation: Activation) -> io::Result<Leaf> {
        let path = self.leaf(activation);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(cannot("create", &path, error)),
            _ => Ok(Leaf { path }),
        }
    }

    /// The cgroup of `activation`, if it is there.
    pub fn open_leaf(&self, activation: Activation) -> Option<Leaf> {
        let path = self.leaf(activation);
        path.exists().then_some(Leaf { path })
    }

    /// Whether it is still the one that was recorded.
    fn is_there(&self) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(metadata) => Ok(metadata.ino() == self.inode),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(cannot("look into", &self.path, error)),
        }
    }

    /// Removes the base and whatever is empty below it. What is not empty stays.
    pub fn remove(&self) {
        remove_empty(&self.path);
    }
}

/// The cgroup of one activation.
#[derive(Clone, Debug)]
pub struct Leaf {
    path: PathBuf,
}

impl Leaf {
    /// Its folder, for a process to be born in it.
    pub fn open(&self) -> io::Result<File> {
        File::open(&self.path).map_err(|error| cannot("open", &self.path, error))
    }

    /// Moves a process into it.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
            .map_err(|error| cannot("move a process into", &self.path, error))
    }

    /// SIGKILL to all that is in it or below, without a race against fork. Killing nothing is no error.
    pub fn kill(&self) -> io::Result<()> {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Err(error) if !is_absent(&error) => Err(cannot("kill", &self.path, error)),
            _ => Ok(()),
        }
    }

    /// Whether nothing lives in it or below. Only an empty cgroup can be removed, so an absent one is empty.
    pub fn is_empty(&self) -> io::Result<bool> {
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(events) => Ok(says_empty(&events)),
            Err(error) if is_absent(&error) => Ok(true),
            Err(error) => Err(cannot("look into", &self.path, error)),
        }
    }

    /// Removes it with whatever cgroups the workload made below; best effort, what is not empty stays.
    pub fn remove(&self) {
        remove_empty(&self.path);
    }

    /// Waits until nothing lives in it, at most `limit`.
    fn wait_empty(&self, limit: Duration) -> io::Result<bool> {
        let until = clock::now() + limit;
        let mut events = match File::open(self.path.join("cgroup.events")) {
            Ok(events) => events,
            Err(error) if is_absent(&error) => return Ok(true),
            Err(error) => return Err(cannot("look into", &self.path, error)),
        };
        loop {
            let mut text = String::new();
            events.rewind()?;
            match events.read_to_string(&mut text) {
                Ok(_) if says_empty(&text) => return Ok(true),
                Err(error) if is_absent(&error) => return Ok(true),
                Err(error) => return Err(cannot("look into", &self.path, error)),
                Ok(_) if clock::now() >= until => return Ok(false),
                Ok(_) => {}
            }
            let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            let look = until.min(clock::now() + LOOK_PACE);
            match nix::poll::poll(&mut fds, timeout_until(look)) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(cannot("watch", &self.path, errno.into())),
            }
        }
    }
}

/// Ends what is left of `activation` after both of its keepers died, and proves it. Called by another process.
///
/// False is no proof: another mount, another boot, or something that does not die within `limit`.
/// See docs/safety.md R15.
pub fn prove_gone(base: &Base, activation: Activation, limit: Duration) -> io::Result<bool> {
    if !base.is_there()? {
        return Ok(false);
    }
    // The guard makes the leaf before it forks and removes it only when it is empty.
    let empty = match base.open_leaf(activation) {
        None => true,
        Some(leaf) => {
            leaf.kill()?;
            leaf.wait_empty(limit)?
        }
    };
    if empty {
        // Nobody else is left to tidy up. Should the caller die now, the next one waits for a lease instead.
        base.remove();
    }
    Ok(empty)
}

/// The same for all activations of an elector: ends whatever is below its base, and proves it.
///
/// A base that is gone is no proof. It is removed only when it is empty, but nobody can tell by whom.
pub fn prove_all_gone(base: &Base, limit: Duration) -> io::Result<bool> {
    if !base.is_there()? {
        return Ok(false);
    }
    let all = Leaf { path: base.path.clone() };
    all.kill()?;
    let empty = all.wait_empty(limit)?;
    if empty {
        base.remove();
    }
    Ok(empty)
}

/// The folder of the cgroup v2 that the caller is in, where there is one.
pub fn own_folder() -> Option<PathBuf> {
    own_cgroup().ok()
}

/// The cgroup v2 that the caller is in.
fn own_cgroup() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let membership = fs::read_to_string("/proc/self/cgroup")?;
    locate(&mounts, &membership)
        .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "failed to find the own cgroup v2: none is mounted here"))
}

/// Where the cgroup that `/proc/self/cgroup` names is mounted, according to `/proc/self/mountinfo`.
fn locate(mounts: &str, membership: &str) -> Option<PathBuf> {
    let own = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    if own.split('/').any(|part| part == "..") {
        return None; // Outside of the cgroup namespace: the mount does not show it.
    }
    mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = fields.split(' ').skip(3);
        let (root, mount_point) = (unescape(fields.next()?), unescape(fields.next()?));
        let below = Path::new(own).strip_prefix(root).ok()?;
        Some(Path::new(&mount_point).join(below))
    })
}

/// Undoes mountinfo's octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn says_empty(events: &str) -> bool {
    events.lines().any(|line| line == "populated 0")
}

/// A cgroup that is being removed answers ENODEV.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// Removes empty cgroups from the bottom up. rmdir refuses one that is in use.
fn remove_empty(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

fn cannot(what: &str, path: &Path, error: io::Error) -> io::Error {
    failed(&format!("{what} the cgroup {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A base, where this machine lets us have one.
    fn base(nonce: u128) -> Option<Base> {
        Base::create(Nonce(nonce)).map_err(|error| eprintln!("skipped: {error}")).ok()
    }

    #[test]
    fn the_own_cgroup_is_found_on_hybrid_unified_and_nested_mounts() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:5 - cgroup2 cgroup2 rw\n";
        let at = |mounts: &str, membership: &str| locate(mounts, membership).map(|path| path.display().to_string());
        assert_eq!(at(hybrid, "9:name=systemd:/x\n0::/\n").as_deref(), Some("/sys/fs/cgroup/unified/"));
        assert_eq!(at(hybrid, "0::/a/b\n").as_deref(), Some("/sys/fs/cgroup/unified/a/b"));
        assert_eq!(at(hybrid, "1:cpu:/a\n"), None);
        assert_eq!(at(hybrid, "0::/../other\n"), None);
        let container = "5 4 0:9 /pods/p1 /sys/fs/cgro\\040up rw - cgroup2 cgroup rw\n";
        assert_eq!(at(container, "0::/pods/p1/c1\n").as_deref(), Some("/sys/fs/cgro up/c1"));
        assert_eq!(at(container, "0::/elsewhere\n"), None);
    }

    #[test]
    fn a_leaf_is_killed_and_proven_gone() {
        let Some(base) = base(0xba5e_0001) else { return };
        let activation = Activation(1);
        let leaf = base.create_leaf(activation).unwrap();
        assert!(leaf.is_empty().unwrap());
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        leaf.add(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(!leaf.is_empty().unwrap());
        base.remove();
        assert!(base.path.exists(), "what is in use stays");
        assert!(prove_gone(&base, activation, LIMIT).unwrap());
        assert!(!child.wait().unwrap().success());
        assert!(!base.leaf(activation).exists());
        base.remove();
        assert!(!base.path.exists());
    }

    #[test]
    fn all_that_is_below_a_base_is_killed_and_proven_gone() {
        let Some(base) = base(0xba5e_0003) else { return };
        let leaves = [1, 2].map(|number| base.create_leaf(Activation(number)).unwrap());
        let mut children = leaves.map(|leaf| {
            let child = Command::new("sleep").arg("1000").spawn().unwrap();
            leaf.add(i32::try_from(child.id()).unwrap()).unwrap();
            child
        });
        let other = Base { inode: base.inode + 1, ..base.clone() };
        assert!(!prove_all_gone(&other, LIMIT).unwrap());
        assert!(prove_all_gone(&base, LIMIT).unwrap());
        for child in &mut children {
            assert!(!child.wait().unwrap().success());
        }
        assert!(!base.path.exists());
        assert!(!prove_all_gone(&base, LIMIT).unwrap(), "nobody can tell who has removed it");
    }

    #[test]
    fn only_the_recorded_base_proves_anything() {
        let Some(base) = base(0xba5e_0002) else { return };
        assert!(prove_gone(&base, Activation(2), LIMIT).unwrap(), "never started, or removed when empty");
        let other = Base { inode: base.inode + 1, ..base.clone() };
        assert!(!prove_gone(&other, Activation(2), LIMIT).unwrap());
        base.remove();
        assert!(!prove_gone(&base, Activation(2), LIMIT).unwrap());
    }
}
