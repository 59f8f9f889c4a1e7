//! Who is unhealthy does not stand, who is active and unhealthy stays where nobody else is fit, and no check of whatever
//! kind is in the way of a release.

#![allow(clippy::expect_used, reason = "helpers of tests fail where they stand")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use testkit::group::Group;
use testkit::member::Member;
use testkit::process;
use testkit::scenario::{LIMIT, STAMPS, check, follow, start};
use testkit::stamp;
use testkit::wait::{holds_for, wait_until};

/// Options of a check that is asked often. `start` is how long a workload may take to start.
fn often<'a>(check: &'a str, start: &'a str) -> Vec<&'a str> {
    let pace = ["--health-interval", "500ms", "--health-timeout", "500ms", "--health-start", start];
    ["--health-exec", check].into_iter().chain(pace).collect()
}

/// How often a check has written a line.
fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

fn note(group: &Group, name: &str) -> (PathBuf, String) {
    let path = group.folder().join(name);
    let text = path.display().to_string();
    (path, text)
}

/// A check that says on which side it was asked, fails on the active one, and counts how often it was asked there.
fn fails_when_active(counter: &str) -> String {
    format!("[ \"$SOLOIST_ROLE\" = standby ] || {{ echo asked >> {counter}; exit 3; }}")
}

fn says(member: &Member, text: &str) -> Result<()> {
    wait_until(&format!("{} to say {text:?}", member.name()), LIMIT, || member.log().contains(text))
        .map_err(|error| error.context(member.log()))
}

#[test]
fn an_unhealthy_standby_does_not_stand_until_it_is_healthy() -> Result<()> {
    let group = Group::unhurried()?;
    let (path, flag) = note(&group, "flag");
    let (mut members, active) = start(&group, &["a"], &[], &[])?;
    let standby = Member::spawn(&group, "b", &often(&format!("test -e {flag}"), "30s"), &[])?;
    says(&standby, "no check has succeeded yet, the first: the check ended with code 1")?;
    members[0].signal(Signal::TERM)?;
    members[0].wait_exit_code(LIMIT)?;
    holds_for("nobody stands", Duration::from_secs(3), || group.active().is_none())?;
    assert_eq!(group.history().spans.len(), 1, "{}", group.history());
    fs::write(&path, "")?;
    let next = standby.wait_active(&group, LIMIT)?;
    assert!(next.token > active.token);
    check(&group, 2, &active)
}

#[test]
fn a_check_that_is_not_there_is_named() -> Result<()> {
    let group = Group::unhurried()?;
    let member = Member::spawn(&group, "a", &often("/no/such/check", "30s"), &[])?;
    says(&member, "the first: the check ended with code 127")?;
    says(&member, "/no/such/check")?;
    assert!(group.active().is_none());
    Ok(())
}

#[test]
fn a_group_of_unhealthy_members_keeps_the_present_one_and_says_so_once() -> Result<()> {
    let group = Group::unhurried()?;
    let (path, counter) = note(&group, "asked");
    let (standbys_path, standbys) = note(&group, "standby");
    let (members, _) = start(&group, &["a"], &often(&fails_when_active(&counter), "1ms"), &[])?;
    let _standby = Member::spawn(&group, "b", &often(&format!("echo x >> {standbys}; exit 1"), "1ms"), &[])?;
    says(&members[0], "unhealthy, but no other member is fit: staying active")?;
    let asked = (lines(&path), lines(&standbys_path));
    let more = || lines(&path) > asked.0 + 5 && lines(&standbys_path) > asked.1 + 5;
    wait_until("more checks on both sides", LIMIT, more)?;
    assert_eq!(group.history().spans.len(), 1, "{}", group.history());
    assert_eq!(members[0].log().matches("staying active").count(), 1, "{}", members[0].log());
    group.check(1, STAMPS)
}

#[test]
fn an_unhealthy_active_member_gives_up_to_a_healthy_one_and_is_held_down() -> Result<()> {
    let group = Group::unhurried()?;
    let (path, flag) = note(&group, "flag");
    fs::write(&path, "")?;
    let (mut members, active) = start(&group, &["a"], &often(&format!("test -e {flag}"), "1ms"), &[])?;
    members.push(Member::spawn(&group, "b", &[], &[])?);
    members[1].wait_standby(LIMIT)?;
    let at = stamp::now();
    fs::remove_file(&path)?;
    let handover = follow(&group, &active, at)?;
    assert_eq!(handover.new.member, "b");
    handover.was_proved()?;
    says(&members[0], "this member is unhealthy and another is not")?;
    // Its check succeeds again, which is not enough while another one is active.
    fs::write(&path, "")?;
    says(&members[0], "held down for 60s")?;
    assert_eq!(group.history().spans.len(), 2, "{}", group.history());
    // Nobody else is left: it is better than none.
    members[1].signal(Signal::TERM)?;
    let back = members[0].wait_active(&group, LIMIT)?;
    assert!(back.token > handover.new.token);
    check(&group, 3, &handover.new)
}

#[test]
fn failures_while_the_workload_starts_do_not_count() -> Result<()> {
    let group = Group::unhurried()?;
    let (path, counter) = note(&group, "asked");
    let (members, _) = start(&group, &["a"], &often(&fails_when_active(&counter), "1h"), &[])?;
    wait_until("more failures than it takes", LIMIT, || lines(&path) > 5)?;
    assert!(!members[0].log().contains("unhealthy:"), "{}", members[0].log());
    assert_eq!(group.history().spans.len(), 1, "{}", group.history());
    Ok(())
}

#[test]
fn fifty_checks_leave_no_zombies_and_no_descriptors() -> Result<()> {
    let group = Group::unhurried()?;
    let (path, counter) = note(&group, "asked");
    // A check that floods, and leaves a child behind which nobody waits for.
    let line = format!("echo x >> {counter}; (setsid sleep 0.01 &); head -c 300000 /dev/zero");
    let pace = ["--health-interval", "100ms", "--health-timeout", "100ms"];
    let options: Vec<&str> = ["--health-exec", &line].into_iter().chain(pace).collect();
    let member = Member::spawn(&group, "a", &options, &[])?;
    wait_until("the first check", LIMIT, || lines(&path) > 0)?;
    let elector = member.elector_pid()?;
    let descriptors = || fs::read_dir(format!("/proc/{elector}/fd")).map_or(0, Iterator::count);
    wait_until("five checks", LIMIT, || lines(&path) >= 5)?;
    let few = descriptors();
    wait_until("fifty checks", LIMIT, || lines(&path) >= 50)?;
    let zombies = || process::all().into_iter().filter(|one| one.parent == elector && !one.is_alive()).count();
    wait_until("no zombie", LIMIT, || zombies() == 0)?;
    ensure!(descriptors() <= few + 6, "{} descriptors after {few}", descriptors());
    Ok(())
}

#[test]
fn a_guard_killed_while_a_check_hangs_leads_to_a_normal_release() -> Result<()> {
    let group = Group::unhurried()?;
    let (path, counter) = note(&group, "asked");
    let hang = "trap '' TERM; (setsid sleep 1000 &); sleep 1000";
    let line = format!("[ \"$SOLOIST_ROLE\" = standby ] || {{ echo x >> {counter}; {hang}; }}");
    let options = ["--health-exec", &line, "--health-interval", "1h", "--health-timeout", "1h"];
    let (mut members, active) = start(&group, &["a"], &options, &[])?;
    members.push(Member::spawn(&group, "b", &[], &[])?);
    members[1].wait_standby(LIMIT)?;
    wait_until("the check to hang", LIMIT, || lines(&path) > 0)?;
    let at = stamp::now();
    process::signal(members[0].guard_pid()?, Signal::KILL)?;
    let handover = follow(&group, &active, at)?;
    handover.was_proved()?;
    handover.came_within(Duration::from_secs(5))?;
    assert_eq!(members[0].try_exit()?, None, "{}", members[0].log());
    // The check and all that it forked went with the workload, and counted as nothing.
    let left = members[0].processes().into_iter().filter(|one| one.called() == "sleep").collect::<Vec<_>>();
    assert!(left.is_empty(), "{left:?}");
    assert!(!members[0].log().contains("unhealthy"), "{}", members[0].log());
    check(&group, 2, &active)
}

/// Answers every request with the present status, and counts them.
struct Server {
    port: u16,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server =
            Self { port: listener.local_addr()?.port(), status: Arc::new(AtomicU16::new(200)), asked: Arc::default() };
        let (status, asked) = (Arc::clone(&server.status), Arc::clone(&server.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                asked.fetch_add(1, Ordering::SeqCst);
                let _ = answer(stream, status.load(Ordering::SeqCst));
            }
        });
        Ok(server)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, status: u16) -> Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request)?;
    Ok(write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n")?)
}

#[test]
fn a_server_is_asked_only_while_the_own_workload_runs() -> Result<()> {
    let group = Group::unhurried()?;
    let (first, second) = (Server::start()?, Server::start()?);
    let url = |server: &Server| format!("http://127.0.0.1:{}/healthz", server.port);
    let pace = ["--health-interval", "500ms", "--health-timeout", "500ms", "--health-start", "1ms"];
    let urls = [url(&first), url(&second)];
    let options = |url: usize| ["--health-http", &urls[url]].into_iter().chain(pace).collect::<Vec<_>>();
    let (mut members, active) = start(&group, &["a"], &options(0), &[])?;
    first.status.store(503, Ordering::SeqCst);
    says(&members[0], "unhealthy: failed 3 times, the last: the answer is 503 Service Unavailable")?;
    says(&members[0], "staying active")?;
    first.status.store(200, Ordering::SeqCst);
    says(&members[0], "healthy: the check succeeds")?;
    members.push(Member::spawn(&group, "b", &options(1), &[])?);
    members[1].wait_standby(LIMIT)?;
    assert_eq!(second.asked(), 0, "there is nothing to ask on a standby");
    let at = stamp::now();
    first.status.store(404, Ordering::SeqCst);
    let handover = follow(&group, &active, at)?;
    assert_eq!(handover.new.member, "b", "a standby that cannot be asked counts as healthy");
    handover.was_proved()?;
    wait_until("a question to the new one", LIMIT, || second.asked() > 0)?;
    Ok(())
}
