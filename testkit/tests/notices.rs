//! Listeners hear of every handover, whatever the other listeners do.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::sync::mpsc;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::group::Group;
use testkit::scenario::{LIMIT, start};
use testkit::told::listen;
use testkit::wait::wait_until;

/// What it is told next of this role.
fn next(heard: &mpsc::Receiver<Value>, member: &str, role: &str) -> Result<Value> {
    loop {
        let notice =
            heard.recv_timeout(LIMIT).with_context(|| format!("waited {LIMIT:?} in vain for {member} being {role}"))?;
        if notice["member"] == member && notice["role"] == role {
            return Ok(notice);
        }
    }
}

fn role_in(path: &Path) -> Option<String> {
    let notice: Value = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    Some(format!("{} {}", notice["member"].as_str()?, notice["role"].as_str()?))
}

#[test]
fn a_handover_is_told_by_request_datagram_and_file_beside_a_listener_that_hangs() -> Result<()> {
    let (port, heard) = listen("127.0.0.1", 1)?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(LIMIT))?;
    let udp = socket.local_addr()?.port();
    // A backlog takes the connections, and nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let hangs = silent.local_addr()?.port();
    let group = Group::new()?;
    let file = group.folder().join("role.json");
    let listeners = format!(
        "http://127.0.0.1:{hangs}/,http://127.0.0.1:{port}/role,udp:127.0.0.1:{udp}/become-active,file:{}",
        file.display()
    );
    let (mut members, first) = start(&group, &["a", "b"], &["--notify", &listeners], &[])?;
    let told = next(&heard, "a", "active")?;
    ensure!(told["fencing_token"] == first.token && told["group"] == "test", "{told}");
    let payload = || -> Result<String> {
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes)?;
        Ok(String::from_utf8(bytes[..length].to_vec())?)
    };
    ensure!(payload()? == "become-active", "the first activation");

    members[0].signal(Signal::TERM)?;
    let second = group.wait_active_after(first.token, LIMIT)?;
    let told = next(&heard, "b", "active")?;
    ensure!(told["fencing_token"] == second.token, "{told}");
    ensure!(payload()? == "become-active", "the second activation");
    wait_until("the file", LIMIT, || role_in(&file).is_some_and(|role| role == "b active"))?;
    // The one that hangs has its 2 s, and nothing else waits for it.
    members[0].wait_exit_code(LIMIT)?;
    ensure!(members[0].log().contains("leaving without having told"), "{}", members[0].log());
    group.history().violations().is_empty().then_some(()).context("two were active")
}

#[test]
fn who_is_stopped_says_so_while_its_workload_still_ends() -> Result<()> {
    let (port, heard) = listen("127.0.0.1", 1)?;
    let mut group = Group::new()?;
    group.set("--stop-grace", "5s");
    let listener = format!("http://127.0.0.1:{port}/role");
    let (mut members, first) = start(&group, &["a"], &["--notify", &listener], &["--mode", "ignore-term"])?;
    next(&heard, "a", "active")?;
    members[0].signal(Signal::TERM)?;
    let told = next(&heard, "a", "standby")?;
    ensure!(told["fencing_token"] == first.token, "{told}");
    ensure!(members[0].try_exit()?.is_none(), "its workload ignores SIGTERM: {}", members[0].log());
    members[0].wait_exit_code(LIMIT)?;
    Ok(())
}
