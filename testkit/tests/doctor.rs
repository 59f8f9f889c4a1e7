//! `soloist doctor` finds what is wrong with a group on a lock file, and leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::group::{Group, binary};
use testkit::scenario::{LIMIT, start};
use testkit::wait::wait_until;

fn doctor(lock: &Path, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("soloist")?);
    command.args(["doctor", "--probes", "5", "--lock"]).arg(lock).args(words);
    command.output().context("failed to run soloist")
}

/// The exit code, and each finding.
fn examined(lock: &Path, words: &[&str]) -> Result<(Option<i32>, Vec<Value>)> {
    let output = doctor(lock, &[words, &["-o", "json"]].concat())?;
    let report: Value =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code(), report["findings"].as_array().cloned().unwrap_or_default()))
}

fn level<'a>(findings: &'a [Value], check: &str) -> Result<&'a str> {
    let finding = findings.iter().find(|finding| finding["check"] == check);
    finding.and_then(|finding| finding["level"].as_str()).with_context(|| format!("no {check}: {findings:?}"))
}

/// But for the next record, which each renewal writes before it takes the place of the last one.
fn files(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !name.ends_with(".record.new"));
    names.sort();
    Ok(names)
}

#[test]
fn a_group_of_two_on_a_local_disk_has_no_problem() -> Result<()> {
    let group = Group::new()?;
    let (_members, _) = start(&group, &["a", "b"], &[], &[])?;
    wait_until("both to announce themselves", LIMIT, || {
        examined(group.lock(), &[]).is_ok_and(|(_, findings)| level(&findings, "members").is_ok_and(|is| is == "ok"))
    })?;
    let before = files(group.folder())?;
    let (code, findings) = examined(group.lock(), &[])?;
    let problems: Vec<_> = findings.iter().filter(|finding| finding["level"] == "problem").collect();
    // A busy machine may be late, and that is a finding.
    ensure!(problems.iter().all(|finding| finding["check"] == "lateness"), "{problems:?}");
    assert_eq!(code, Some(i32::from(!problems.is_empty())));
    for check in ["lock", "timing", "members", "versions", "latency", "permissions", "containment"] {
        level(&findings, check)?;
    }
    ensure!(findings.iter().all(|finding| finding["level"] == "ok" || finding["fix"].is_string()), "{findings:?}");
    assert_eq!(files(group.folder())?, before, "something was left behind");
    let text = String::from_utf8(doctor(group.lock(), &[])?.stdout)?;
    ensure!(text.contains("looks at the lock: p50 "), "{text}");
    Ok(())
}

#[test]
fn what_cannot_work_is_a_problem_and_leaves_with_1() -> Result<()> {
    let group = Group::new()?;
    let (_members, _) = start(&group, &["a"], &[], &[])?;
    let (code, findings) = examined(group.lock(), &["--lease", "1s"])?;
    assert_eq!((code, level(&findings, "timing")?), (Some(1), "problem"));
    let (_, findings) = examined(group.lock(), &["--lease", "5s"])?;
    assert_eq!(level(&findings, "lease")?, "warning", "the member has another one");

    fs::write(group.folder().join("odd.lock.record"), "not ours")?;
    let (code, findings) = examined(&group.folder().join("odd.lock"), &[])?;
    assert_eq!((code, level(&findings, "lock")?), (Some(1), "problem"));
    let (code, findings) = examined(Path::new("/nowhere/x.lock"), &[])?;
    assert_eq!((code, level(&findings, "permissions")?), (Some(1), "problem"));
    Ok(())
}

#[test]
fn before_the_first_start_there_is_only_something_to_know() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_, findings) = examined(&folder.path().join("app.lock"), &[])?;
    assert_eq!((level(&findings, "lock")?, level(&findings, "permissions")?), ("warning", "ok"));
    ensure!(files(folder.path())?.is_empty(), "something was left behind");
    let output = doctor(&folder.path().join("app.lock"), &["--probes", "0"])?;
    assert_eq!(output.status.code(), Some(64));
    Ok(())
}
