//! A probe that is warm: it runs while its member stands by, and is active from SIGUSR1 on.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};
use serde_json::Value;
use testkit::stamp::Identity;

/// Waits to be told. From when it could be, `DIR/warm-MEMBER` holds its PID.
pub fn stand_by(dir: &Path) -> Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("failed to read {name}"));
    ensure!(variable("SOLOIST_ROLE")? == "standby", "a probe that is warm starts as a standby");
    for name in ["SOLOIST_ACTIVATION", "SOLOIST_FENCING_TOKEN"] {
        ensure!(std::env::var_os(name).is_none(), "a standby is told {name}");
    }
    let mut told = SigSet::empty();
    told.add(Signal::SIGUSR1);
    told.thread_block().context("failed to block SIGUSR1")?;
    let (draft, ready) = (dir.join("warm.new"), dir.join(format!("warm-{}", variable("SOLOIST_MEMBER")?)));
    let draft = draft.with_extension(std::process::id().to_string());
    fs::write(&draft, std::process::id().to_string()).context("failed to say that it is warm")?;
    fs::rename(&draft, &ready).context("failed to say that it is warm")?;
    told.wait().context("failed to wait for SIGUSR1")?;
    Ok(())
}

/// Whose turn it is by the record beside this lock file.
pub fn identity(lock: &Path) -> Result<Identity> {
    let mut path = lock.as_os_str().to_owned();
    path.push(".record");
    let record: Value = serde_json::from_slice(&fs::read(path).context("failed to read the record")?)?;
    let text =
        |pointer: &str| record.pointer(pointer).and_then(Value::as_str).context(format!("no {pointer}: {record}"));
    // The token is the version of the acquiring write.
    let token = record.pointer("/claim/token").filter(|token| !token.is_null()).or(record.get("version"));
    let token = token.and_then(Value::as_u64).with_context(|| format!("no token: {record}"))?;
    Identity::parse(&format!("{token},{},{}", text("/claim/activation")?, text("/claim/member/name")?))
}
