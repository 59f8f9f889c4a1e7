//! The Debian package, installed into a root that has nothing but it and a shell, and used there as its unit says.

#![allow(clippy::expect_used, reason = "helpers of tests fail where they stand")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testkit::documents::root as repository;
use testkit::executable;
use testkit::unit::Unit;

/// Whom the unit says, in the files of the root.
const UID: u32 = 999;

fn package() -> PathBuf {
    let folder = std::env::var_os("SOLOIST_PACKAGES").map(PathBuf::from).expect("SOLOIST_PACKAGES: make packages");
    folder.join(format!("soloist_{}-1_amd64.deb", env!("CARGO_PKG_VERSION")))
}

fn run(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(output)
}

/// A host of its own.
struct Host(TempDir);

impl Host {
    fn new() -> Result<Self> {
        let host = Self(tempfile::tempdir()?);
        for folder in ["bin", "dev", "etc/soloist", "proc", "tmp", "var/lib/dpkg/info", "var/lib/dpkg/updates"] {
            fs::create_dir_all(host.path(folder))?;
        }
        executable::copy(Path::new("/bin/busybox"), &host.path("bin/busybox"))?;
        for applet in ["cat", "env", "mkfifo", "sh", "sleep", "su"] {
            symlink("busybox", host.path("bin").join(applet))?;
        }
        fs::write(host.path("var/lib/dpkg/status"), "")?;
        fs::write(host.path("dev/null"), "")?;
        fs::write(host.path("etc/passwd"), format!("root:x:0:0::/:/bin/sh\nsoloist:x:{UID}:{UID}::/:/bin/sh\n"))?;
        Ok(host)
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside)
    }

    fn install(&self) -> Result<()> {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let root = format!("--root={}", self.0.path().display());
        run(Command::new("dpkg").env("PATH", path).args([&root, "--install"]).arg(package()))?;
        Ok(())
    }

    /// Runs a script as the first process of the host.
    fn sh(&self, script: &str) -> Result<String> {
        let mut command = Command::new("timeout");
        command.args(["60", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--root"]);
        command.arg(self.0.path()).args(["/bin/sh", "-euc", script]);
        Ok(String::from_utf8(run(&mut command)?.stdout)?)
    }

    fn unit(&self) -> Result<Unit> {
        Unit::read(&self.path("usr/lib/systemd/system/soloist@.service"))
    }
}

#[test]
fn an_installed_package_runs_two_services_of_one_host_as_the_unit_says() -> Result<()> {
    let host = Host::new()?;
    host.install()?;
    let unit = host.unit()?;
    let version = host.sh("/usr/bin/soloist --version")?;
    ensure!(version.trim_end() == format!("soloist {}", env!("CARGO_PKG_VERSION")), "{version}");

    fs::create_dir_all(host.path("usr/local/bin"))?;
    // What the examples run: it tells who runs it, and with what.
    executable::write(
        &host.path("usr/local/bin/web"),
        "#!/bin/sh\necho \"$SOLOIST_MEMBER $SOLOIST_FENCING_TOKEN $*\" >/events\nexec sleep 1000\n",
    )?;
    let state = host.path("var/lib").join(unit.setting("StateDirectory", "")?);
    fs::create_dir(&state)?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o750))?;
    chown(&state, Some(UID), Some(UID))?;

    let user = unit.setting("User", "")?;
    let mut script = "mkfifo -m 666 /events\n".to_owned();
    for instance in ["web-a", "web-b"] {
        let installed = host.path("usr/share/doc/soloist/examples").join(format!("{instance}.env"));
        fs::write(host.path(&format!("{instance}.sh")), unit.script(instance, &installed)?)?;
    }
    script += &format!(
        "su {user} -c 'exec sh /web-a.sh' 2>/a.log & first=$!\n\
         cat /events\n\
         su {user} -c 'exec sh /web-b.sh' 2>/b.log & second=$!\n\
         kill -TERM $first; cat /events; wait $first || echo \"first $?\"\n\
         su {user} -c 'soloist status --lock /var/lib/soloist/web.lock' || true\n\
         kill -TERM $second; wait $second || echo \"second $?\"\n"
    );
    let told = host.sh(&script)?;
    let lines: Vec<&str> = told.lines().collect();
    ensure!(lines[0] == "web-a 1 --listen 0.0.0.0:8080", "{told}");
    ensure!(lines[1].starts_with("web-b ") && lines[1].ends_with(" --listen 0.0.0.0:8080"), "{told}");
    // Each left with its workload's end by SIGTERM, and not by a kill.
    let ended = unit.setting("SuccessExitStatus", "")?;
    let both = [format!("first {ended}"), format!("second {ended}")];
    ensure!(both.iter().all(|line| told.contains(line)) && told.contains("active"), "{told}");
    Ok(())
}

#[test]
fn the_unit_is_understood_by_systemd() -> Result<()> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: there is no systemd-analyze");
        return Ok(());
    }
    let host = Host::new()?;
    host.install()?;
    // As if it were installed here: its executable and its manual page have to be there.
    let script = format!(
        "mount -t overlay overlay -o lowerdir={}:/usr /usr && systemd-analyze verify soloist@web.service",
        host.path("usr").display()
    );
    let output = run(Command::new("timeout").args(["60", "unshare", "--mount", "sh", "-c", &script]))?;
    ensure!(output.stderr.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn the_unit_leaves_time_for_the_stop_and_the_cgroup_to_the_guard() -> Result<()> {
    let unit = Unit::read(&repository().join("packaging/soloist@.service"))?;
    // SIGTERM is for soloist alone, and SIGKILL comes after the grace of ten seconds, proof and release.
    ensure!(unit.setting("KillMode", "")? == "mixed" && unit.setting("TimeoutStopSec", "")? == "30s");
    ensure!(unit.setting("Delegate", "")? == "yes" && !unit.has("ProtectControlGroups"));
    Ok(())
}

#[test]
fn the_package_has_pages_completions_licences_and_no_file_of_somebody() -> Result<()> {
    let listed = String::from_utf8(run(Command::new("dpkg-deb").arg("--contents").arg(package()))?.stdout)?;
    for wanted in [
        "./usr/share/man/man1/soloist-run.1.gz",
        "./usr/share/bash-completion/completions/soloist",
        "./usr/share/zsh/vendor-completions/_soloist",
        "./usr/share/fish/vendor_completions.d/soloist.fish",
        "./usr/share/doc/soloist/LICENSE-MIT",
        "./usr/share/doc/soloist/LICENSE-APACHE",
    ] {
        ensure!(listed.contains(wanted), "{wanted}: {listed}");
    }
    ensure!(listed.lines().all(|line| line.contains(" 0/0 ")), "{listed}");
    Ok(())
}
