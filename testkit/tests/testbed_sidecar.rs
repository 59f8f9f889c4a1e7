//! `soloist sidecar` on a real API server: an application asks or is told whether it is the active one.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::group::binary;
use testkit::leader_elector::{Election, Elector, LEASE, taken_over};
use testkit::wait::{holds_for, wait_until, within};

const LIMIT: Duration = Duration::from_secs(40);
/// What a loaded machine adds to a wait.
const LATE: Duration = Duration::from_secs(2);

fn wait_active(one: &Elector) -> Result<()> {
    wait_until("it to be active", LIMIT, || one.is_active().unwrap_or(false)).with_context(|| one.log())
}

fn told(path: &Path) -> Option<(String, Option<u64>)> {
    let notice: Value = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    Some((notice["role"].as_str()?.to_owned(), notice["fencing_token"].as_u64()))
}

#[test]
fn one_says_that_it_is_active_and_the_next_one_after_sigterm_and_sigkill() -> Result<()> {
    let election = Election::free_lease()?;
    let mut a = election.start_sidecar("a", &[])?;
    wait_active(&a)?;
    let b = election.start_sidecar("b", &[])?;
    let c = election.start_sidecar("c", &[])?;
    let alone = || a.is_active().is_ok_and(|is| is) && [&b, &c].iter().all(|one| one.is_active().is_ok_and(|is| !is));
    holds_for("the first alone is active", LEASE, alone)?;
    a.signal(Signal::TERM)?;
    let next = |first: &Elector, second: &Elector| -> Result<bool> {
        wait_until("another one", LIMIT, || [first, second].iter().any(|one| one.is_active().unwrap_or(false)))?;
        first.is_active()
    };
    let (second, third) = if next(&b, &c)? { (b, c) } else { (c, b) };
    ensure!(a.wait()? == Some(0), "{}", a.log());
    second.signal(Signal::KILL)?;
    let took = taken_over(&[&second, &third], &third, Elector::is_active)?;
    within("the third one to be active", took, LEASE + LATE).with_context(|| third.log())?;
    third.terminate()
}

#[test]
fn one_that_is_stopped_says_so_no_more_when_it_goes_on() -> Result<()> {
    let election = Election::free_lease()?;
    let a = election.start_sidecar("a", &[])?;
    wait_active(&a)?;
    let b = election.start_sidecar("b", &[])?;
    a.signal(Signal::STOP)?;
    wait_active(&b)?;
    a.signal(Signal::CONT)?;
    // Its first answer is computed by the clock.
    ensure!(!a.is_active()?, "{}", a.log());
    taken_over(&[&a, &b], &b, Elector::is_active).map(drop)
}

#[test]
fn a_listener_beside_it_is_told() -> Result<()> {
    let election = Election::free_lease()?;
    let file = election.dropin.folder().join("role.json");
    let a = election.start_sidecar("a", &["--notify", &format!("file:{}", file.display())])?;
    wait_until("the notice", LIMIT, || told(&file).is_some_and(|(role, token)| role == "active" && token.is_some()))
        .with_context(|| a.log())?;
    a.terminate()?;
    ensure!(told(&file).is_some_and(|(role, token)| role == "standby" && token.is_some()), "{:?}", told(&file));
    Ok(())
}

/// An application that says whether it is ready.
fn application(is_ready: &Arc<AtomicBool>) -> Result<String> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/ready", server.local_addr()?);
    let is_ready = Arc::clone(is_ready);
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let status = if is_ready.load(Ordering::Relaxed) { "200 OK" } else { "503 Not Ready" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        }
    });
    Ok(url)
}

#[test]
fn only_an_application_that_is_ready_becomes_active_and_one_that_is_no_more_hands_over() -> Result<()> {
    let election = Election::free_lease()?;
    let (first, second) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let start = |name: &str, is_ready: &Arc<AtomicBool>| {
        let url = application(is_ready)?;
        election
            .start_sidecar(name, &["--health-http", &url, "--health-interval", "200ms", "--health-timeout", "200ms"])
    };
    let (a, b) = (start("a", &first)?, start("b", &second)?);
    let neither = || [&a, &b].iter().all(|one| one.is_active().is_ok_and(|is| !is));
    holds_for("neither is active", LEASE, neither)?;
    second.store(true, Ordering::Relaxed);
    wait_active(&b)?;
    ensure!(!a.is_active()?, "{}", a.log());
    first.store(true, Ordering::Relaxed);
    wait_until("the others to know", LIMIT, || {
        a.status().is_ok_and(|status| status["health"]["healthy"] == true)
            && b.status().is_ok_and(|status| status["members"].to_string().contains(r#""name":"a""#))
    })
    .with_context(|| format!("{}{}", a.log(), b.log()))?;
    second.store(false, Ordering::Relaxed);
    taken_over(&[&a, &b], &a, Elector::is_active)?;
    Ok(())
}

#[test]
fn what_nobody_would_hear_of_or_nothing_could_hold_is_refused() -> Result<()> {
    for (options, part) in [
        (&["--lock", "kubernetes://default/app"][..], "--notify"),
        (&["--lock", "./app.lock", "--http", "127.0.0.1:0"], "workload"),
    ] {
        let output = Command::new(binary("soloist")?).arg("sidecar").args(options).output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(78) && said.contains(part), "{options:?}: {:?} {said}", output.status);
    }
    Ok(())
}
