//! What stands before the first process of a container that no kubelet makes.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use rustix::mount::{MountFlags, mount, mount_bind};
use testkit::stamp;

/// Mounts something, in a mount namespace of its own, notes the instant and executes a command.
#[derive(Debug, Args)]
pub struct Contain {
    /// A folder that is hidden by an empty one before
    #[arg(long)]
    below: Option<PathBuf>,
    /// What to mount
    source: PathBuf,
    /// Where
    target: PathBuf,
    /// Where to note the instant
    began: PathBuf,
    /// What to execute then
    #[arg(trailing_var_arg = true)]
    command: Vec<OsString>,
}

impl Contain {
    /// Returns only with an error.
    pub fn execute(self) -> Result<ExitCode> {
        if let Some(below) = &self.below {
            mount("none", below, "tmpfs", MountFlags::empty(), None).context("failed to mount an empty folder")?;
        }
        fs::create_dir_all(&self.target).with_context(|| format!("failed to create {}", self.target.display()))?;
        mount_bind(&self.source, &self.target).context("failed to mount what a kubelet mounts")?;
        let (program, arguments) = self.command.split_first().context("no command")?;
        fs::write(&self.began, stamp::now().to_string()).context("failed to note the instant")?;
        Err(Command::new(program).args(arguments).exec()).context("failed to execute the command")
    }
}
