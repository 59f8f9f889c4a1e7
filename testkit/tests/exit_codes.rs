//! Exit codes say what happened: the workload's own, what a shell would say, or what is wrong with the call.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use testkit::group::{Group, binary};
use testkit::scenario::{LIMIT, start};

/// The exit code of a member with this workload.
fn code_of<S: AsRef<std::ffi::OsStr>>(workload: &[S]) -> Result<i32> {
    let group = Group::new()?;
    group.member("a").run(workload)?.wait_exit_code(LIMIT)
}

#[test]
fn the_workloads_own_code() -> Result<()> {
    for code in [0, 1, 7, 255] {
        assert_eq!(code_of(&["sh", "-c", &format!("exit {code}")])?, code);
    }
    Ok(())
}

#[test]
fn a_signal_is_128_and_more() -> Result<()> {
    assert_eq!(code_of(&["sh", "-c", "kill -KILL $$"])?, 137);
    assert_eq!(code_of(&["sh", "-c", "kill -SEGV $$"])?, 139);
    Ok(())
}

#[test]
fn what_is_not_there_is_127() -> Result<()> {
    assert_eq!(code_of(&["/nowhere/at-all"])?, 127);
    assert_eq!(code_of(&["soloist-test-no-such-command"])?, 127);
    Ok(())
}

#[test]
fn what_cannot_be_executed_is_126() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), "no program")?;
    assert_eq!(code_of(&[file.path()])?, 126);
    assert_eq!(code_of(&["/"])?, 126);
    Ok(())
}

#[test]
fn an_active_member_ended_by_sigterm_has_its_workloads_code() -> Result<()> {
    let group = Group::new()?;
    let (mut members, _) = start(&group, &["a"], &[], &[])?;
    members[0].signal(Signal::TERM)?;
    assert_eq!(members[0].wait_exit_code(LIMIT)?, 143);
    Ok(())
}

#[test]
fn a_standby_ended_by_sigterm_is_0() -> Result<()> {
    let group = Group::new()?;
    let (mut members, _) = start(&group, &["a", "b"], &[], &[])?;
    members[1].signal(Signal::TERM)?;
    assert_eq!(members[1].wait_exit_code(LIMIT)?, 0);
    Ok(())
}

#[test]
fn a_lost_lease_is_75_with_on_loss_exit() -> Result<()> {
    let group = Group::new()?;
    let (mut members, _) = start(&group, &["a"], &["--on-loss", "exit"], &[])?;
    fs::remove_file(group.lock())?;
    assert_eq!(members[0].wait_exit_code(LIMIT)?, 75);
    group.check(1, 2)
}

/// Runs `soloist` with these words, which it must refuse.
fn refused(words: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("soloist")?);
    Ok(command.args(words).output()?)
}

/// One line for a person; nothing was started and nothing half written.
fn check_refusal(output: &Output, code: i32, about: &str) -> Result<()> {
    let message = String::from_utf8_lossy(&output.stderr);
    let first = message.lines().next().context("no message")?;
    ensure!(output.status.code() == Some(code), "expected code {code}, got {:?}: {message}", output.status.code());
    ensure!(message.contains(about), "expected a word about {about:?}: {message}");
    ensure!(!first.contains("panicked") && !message.contains("RUST_BACKTRACE"), "{message}");
    ensure!(output.stdout.is_empty(), "stdout: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
fn bad_usage_is_64_and_starts_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (lock, started) = (folder.path().join("app.lock"), folder.path().join("started"));
    let (lock, started) = (lock.to_string_lossy(), started.to_string_lossy());
    let touch = ["--", "touch", &started];
    let cases: [(&[&str], &str); 8] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--lease", "soon"], "soon"),
        (&["--lease=-3s"], "-3s"),
        (&["--lease", "0s"], "0s"),
        (&["--lease", "25h"], "lease"),
        (&["--stop-grace", "99999999999999999999s"], "stop-grace"),
        (&["--on-exit", "explode"], "explode"),
        (&["--name", ""], "name"),
    ];
    for (options, about) in cases {
        let mut words = vec!["run", "--lock", &lock, "--group", "g"];
        words.extend(options);
        words.extend(touch);
        check_refusal(&refused(&words)?, 64, about).with_context(|| format!("with {options:?}"))?;
    }
    // A duration, but one that contradicts what else is known.
    check_refusal(&refused(&["run", "--lock", &lock, "--lease", "100ms", "--", "touch", &started])?, 78, "smallest")?;
    check_refusal(&refused(&["run", "--lock", &lock, "--group", "g"])?, 64, "COMMAND")?;
    check_refusal(&refused(&["run", "--lock", &lock, "--group", "g", "--"])?, 64, "COMMAND")?;
    check_refusal(&refused(&["no-such-verb"])?, 64, "no-such-verb")?;
    check_refusal(&refused(&["run", "--", "touch", &started])?, 64, "--group")?;
    ensure!(fs::read_dir(folder.path())?.next().is_none(), "something was left in the lock's folder");
    Ok(())
}

#[test]
fn a_lease_that_is_too_short_names_the_shortest() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lock = folder.path().join("app.lock");
    let words = ["run", "--lock", &lock.to_string_lossy(), "--group", "g", "--lease", "500ms", "--", "true"];
    let output = refused(&words)?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(message.contains("1.") || message.contains("2"), "no smallest lease: {message}");
    Ok(())
}

#[test]
fn a_lock_folder_for_everybody_is_77() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let lock = folder.path().join("app.lock");
    let output = refused(&["run", "--lock", &lock.to_string_lossy(), "--group", "g", "--", "true"])?;
    check_refusal(&output, 77, "writable")
}

#[test]
fn a_lock_behind_a_symlink_is_78() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (lock, target) = (folder.path().join("app.lock"), folder.path().join("other"));
    fs::write(&target, "")?;
    std::os::unix::fs::symlink(&target, &lock)?;
    let output = refused(&["run", "--lock", &lock.to_string_lossy(), "--group", "g", "--", "true"])?;
    check_refusal(&output, 78, "symlink").or_else(|_| check_refusal(&output, 78, "symbolic link"))
}

#[test]
fn a_lock_in_a_folder_that_is_not_there_is_78() -> Result<()> {
    let output = refused(&["run", "--lock", "/nowhere/app.lock", "--group", "g", "--", "true"])?;
    check_refusal(&output, 78, "/nowhere")
}

#[test]
fn a_route_of_no_kind_is_64_and_one_without_a_kubernetes_78() -> Result<()> {
    let pod = ["POD_NAMESPACE=prod", "POD_IP=10.0.0.7", "KUBECONFIG=/does/not/exist"];
    for (route, code, text) in
        [("service:app", 64, "no kind of route"), ("endpoint-slice:app", 78, "the credentials: ")]
    {
        let group = Group::new()?;
        let wrapper = ["env", "-u", "KUBERNETES_SERVICE_HOST"].into_iter().chain(pod);
        let mut member = group.member("a").wrapper(wrapper).options(["--route", route]).run(&["true"])?;
        let got = member.wait_exit_code(LIMIT)?;
        ensure!(got == code && member.log().contains(text), "{route}: {got}: {}", member.log());
    }
    Ok(())
}
