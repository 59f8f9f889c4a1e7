//! What only root can do to a member: mounts, cgroups, other users, namespaces.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The user that owns nothing.
pub const NOBODY: u32 = 65534;

/// Fails with one clear line where this is not root.
pub fn need_root() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "this test needs root; `make check` runs those that do not");
    Ok(())
}

/// What to put before a command to run it as a user that owns nothing and may write no cgroup.
pub fn as_nobody() -> Vec<String> {
    let id = NOBODY.to_string();
    ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"].map(str::to_owned).to_vec()
}

/// Runs a command of the system that must succeed.
pub fn run<S: AsRef<OsStr>>(words: &[S]) -> Result<()> {
    let (program, arguments) = words.split_first().context("no command")?;
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("failed to run {}", program.display()))?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {}", program.display(), message.trim());
    Ok(())
}

/// Does something to one of the testbed's servers: `kill`, `start`, `pause`, `resume`.
pub fn service(verb: &str, server: &str) -> Result<()> {
    run(&[concat!(env!("CARGO_MANIFEST_DIR"), "/../testbed/service"), verb, server])
}

/// A mounted file system, unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    frozen: bool,
}

impl Mount {
    /// An empty file system in memory, of `size` such as `1m`.
    pub fn memory(at: &Path, size: &str) -> Result<Self> {
        fs::create_dir_all(at).context("failed to create a mount point")?;
        let options = format!("size={size},mode=700");
        run(&[
            OsStr::new("mount"),
            "-t".as_ref(),
            "tmpfs".as_ref(),
            "-o".as_ref(),
            options.as_ref(),
            "none".as_ref(),
            at.as_ref(),
        ])?;
        Ok(Self { at: at.to_owned(), frozen: false })
    }

    /// An ext4 file system in a file, which can be frozen.
    pub fn image(at: &Path) -> Result<Self> {
        fs::create_dir_all(at).context("failed to create a mount point")?;
        let image = at.with_extension("img");
        let file = fs::File::create(&image).context("failed to create an image")?;
        file.set_len(16 << 20).context("failed to size an image")?;
        run(&[OsStr::new("mkfs.ext4"), "-q".as_ref(), image.as_ref()])?;
        run(&[OsStr::new("mount"), "-o".as_ref(), "loop".as_ref(), image.as_ref(), at.as_ref()])?;
        Ok(Self { at: at.to_owned(), frozen: false })
    }

    /// Blocks every write until [`Mount::thaw`]: writers sleep uninterruptibly.
    pub fn freeze(&mut self) -> Result<()> {
        run(&[OsStr::new("fsfreeze"), "--freeze".as_ref(), self.at.as_ref()])?;
        self.frozen = true;
        Ok(())
    }

    /// Lets writes go on.
    pub fn thaw(&mut self) -> Result<()> {
        self.frozen = false;
        run(&[OsStr::new("fsfreeze"), "--unfreeze".as_ref(), self.at.as_ref()])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.frozen {
            // A file system that stays frozen would hang whoever touches it, us included.
            let _ = self.thaw();
        }
        // Lazily: what a failed test left running there is killed a moment later, with its group.
        let _ = run(&[OsStr::new("umount"), "--lazy".as_ref(), self.at.as_ref()]);
    }
}

/// An address that swallows all packets to it and from it, until this is dropped.
#[derive(Debug)]
pub struct Swallowed {
    table: String,
}

impl Swallowed {
    /// From now on, connections that there are included.
    pub fn new(address: Ipv4Addr) -> Result<Self> {
        need_root()?;
        let table = format!("soloist-test-{}", address.to_string().replace('.', "-"));
        let hook = "type filter hook input priority 0;";
        let rules = format!("chain swallow {{ {hook} ip saddr {address} drop; ip daddr {address} drop; }}");
        run(&["nft", &format!("table inet {table} {{ {rules}; }}")])?;
        Ok(Self { table })
    }
}

impl Drop for Swallowed {
    fn drop(&mut self) {
        if let Err(error) = run(&["nft", "delete", "table", "inet", &self.table]) {
            eprintln!("packets are swallowed still: {error:#}");
        }
    }
}

/// A cgroup of the old kind, removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// A new cgroup of a controller such as `cpu`, with these files set.
    pub fn new(controller: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let name = format!(
            "soloist-test-{}-{}",
            std::process::id(),
            settings.iter().map(|(_, value)| *value).collect::<String>()
        );
        let path = Path::new("/sys/fs/cgroup").join(controller).join(name);
        fs::create_dir(&path).with_context(|| format!("failed to create the cgroup {}", path.display()))?;
        let cgroup = Self { path };
        for (file, value) in settings {
            fs::write(cgroup.path.join(file), value).with_context(|| format!("failed to set {file} to {value}"))?;
        }
        Ok(cgroup)
    }

    /// What to put before a command to run it inside.
    pub fn wrapper(&self) -> Vec<String> {
        let enter = format!(r#"echo $$ > {}/cgroup.procs && exec "$@""#, self.path.display());
        vec!["sh".to_owned(), "-c".to_owned(), enter, "sh".to_owned()]
    }

    /// A number that one of its files shows after `key`, such as `nr_throttled` in `cpu.stat`.
    pub fn count(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        line.unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // It is empty only a moment after its last process was killed.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
