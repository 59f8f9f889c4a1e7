//! A log that nobody reads blocks nobody: neither renewals nor the handover.

use std::process::Stdio;

use anyhow::Result;
use testkit::ends::End;
use testkit::group::Group;
use testkit::member::Member;
use testkit::scenario::{LEASE, LIMIT, check, hand_over};
use testkit::wait::{holds_for, wait_until};

#[test]
fn a_full_log_pipe_stops_neither_renewal_nor_handover() -> Result<()> {
    for end in [End::Term, End::ElectorKilled, End::WorkloadKilled] {
        let group = Group::new()?;
        // Pipes whose reading ends stay open, unread, in the child handle.
        let blocked = group.member("a").stdout(Stdio::piped()).stderr(Stdio::piped());
        let blocked = blocked.probe(&["--mode", "write-log"])?;
        let active = blocked.wait_active(&group, LIMIT)?;
        let next = Member::spawn(&group, "b", &[], &[])?;
        next.wait_standby(LIMIT)?;
        wait_until("both pipes to be full", LIMIT, || writers_blocked(&blocked, &active) == 2)?;
        holds_for("the same one stays active", LEASE * 2, || group.history().spans.len() == 1)?;
        blocked.wait_active(&group, LIMIT)?;
        hand_over(&group, &[blocked], &active, end)?.was_proved()?;
        check(&group, 2, &active)?;
    }
    Ok(())
}

/// How many threads of the command sleep in a pipe.
fn writers_blocked(member: &Member, active: &testkit::history::Span) -> usize {
    let Ok(command) = member.command_pid(active) else { return 0 };
    let Ok(threads) = std::fs::read_dir(format!("/proc/{command}/task")) else { return 0 };
    let sleeps_in = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("wchan"));
    threads.flatten().filter_map(|thread| sleeps_in(thread).ok()).filter(|place| place.contains("pipe")).count()
}
