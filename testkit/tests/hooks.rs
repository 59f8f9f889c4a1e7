//! Hooks are told what has happened, in order, and delay nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use testkit::group::Group;
use testkit::process;
use testkit::scenario::{LIMIT, STAMPS, follow, start, wait_family};
use testkit::stamp;
use testkit::wait::wait_until;

/// Hooks that each note their environment in one file.
fn noting(path: &str) -> Vec<String> {
    let line = format!(
        "echo $SOLOIST_HOOK $SOLOIST_ROLE $SOLOIST_MEMBER $SOLOIST_GROUP \
         ${{SOLOIST_FENCING_TOKEN:-none}} ${{SOLOIST_ACTIVATION:-none}} >> {path}; test -n \"$SOLOIST_REASON\""
    );
    let hooks = ["--on-active", "--on-standby", "--on-stop"];
    hooks.into_iter().flat_map(|hook| [hook.to_owned(), line.clone()]).collect()
}

#[test]
fn hooks_find_their_environment_and_come_in_order() -> Result<()> {
    let group = Group::unhurried()?;
    let path = group.folder().join("noted");
    let mut options = noting(&path.display().to_string());
    options.extend(["--on-exit".to_owned(), "standby".to_owned()]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let (mut members, active) = start(&group, &["a"], &options, &[])?;
    let noted = || fs::read_to_string(&path).unwrap_or_default();
    let wait_lines = |count| wait_until("hooks", LIMIT, || noted().lines().count() >= count);
    wait_lines(2)?;
    group.end_workload(&active, 0)?;
    wait_lines(4)?;
    let told = format!("a test {} {:032x}", active.token, active.activation);
    let expected = [
        "on-standby standby a test none none".to_owned(),
        format!("on-active active {told}"),
        format!("on-stop stopping {told}"),
        "on-standby standby a test none none".to_owned(),
    ];
    assert_eq!(noted().lines().take(4).collect::<Vec<_>>(), expected, "{}", members[0].log());
    // It stands again after a while, and is then asked to leave: on-stop, and no more.
    group.wait_active_after(active.token, LIMIT)?;
    wait_lines(5)?;
    members[0].signal(Signal::TERM)?;
    members[0].wait_exit_code(LIMIT)?;
    let last = noted().lines().skip(4).map(|line| line.split(' ').next().unwrap_or("").to_owned()).collect::<Vec<_>>();
    assert_eq!(last, ["on-active", "on-stop"]);
    assert!(!members[0].log().contains("failed"), "{}", members[0].log());
    Ok(())
}

/// Ignores SIGTERM, leaves a daemon behind, and never ends.
const HANGS: &str = "trap '' TERM; (setsid sleep 1000 &); sleep 1000";

#[test]
fn hooks_that_hang_delay_neither_a_handover_nor_a_proof() -> Result<()> {
    let options = ["--on-active", HANGS, "--on-standby", HANGS, "--on-stop", HANGS, "--hook-timeout", "1h"];
    for ends_guard in [false, true] {
        let group = Group::unhurried()?;
        let (mut members, active) = start(&group, &["a", "b"], &options, &[])?;
        let hook_runs = || members[0].processes().iter().any(|one| one.called() == "sleep");
        wait_until("a hook to hang", LIMIT, hook_runs)?;
        let at = stamp::now();
        match ends_guard {
            true => process::signal(members[0].guard_pid()?, Signal::KILL)?,
            false => members[0].signal(Signal::TERM)?,
        }
        let handover = follow(&group, &active, at)?;
        handover.was_proved()?;
        wait_family(&group, handover.new.token, 0)?;
        handover.came_within(Duration::from_secs(5))?;
        if ends_guard {
            assert_eq!(members[0].try_exit()?, None, "{}", members[0].log());
        } else {
            members[0].wait_exit_code(LIMIT)?;
            assert!(members[0].log().contains("leaving without waiting any longer for hooks"), "{}", members[0].log());
            let shells = || members[0].processes().into_iter().filter(|one| one.mentions("trap")).count();
            wait_until("what soloist started to end with it", LIMIT, || shells() == 0)?;
        }
        group.check(2, STAMPS)?;
    }
    Ok(())
}

#[test]
fn a_hook_whose_time_is_up_makes_room_for_the_next_one() -> Result<()> {
    let group = Group::unhurried()?;
    let noted = group.folder().join("noted");
    let active = format!("echo active >> {}", noted.display());
    let options = ["--on-standby", HANGS, "--hook-timeout", "300ms", "--on-active", &active];
    let (members, _) = start(&group, &["a"], &options, &[])?;
    wait_until("the second hook", LIMIT, || noted.exists())?;
    let failed = "the hook on-standby failed: killed, because it took longer than 300ms";
    wait_until(failed, LIMIT, || members[0].log().contains(failed)).with_context(|| members[0].log())
}
