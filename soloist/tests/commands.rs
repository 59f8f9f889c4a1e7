//! The reaper collects what nobody waits for, and nothing else. Alone in its process, whose children it may all reap.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]

use std::process::{Child, Command};
use std::time::Duration;

use soloist::commands::{Call, Commands, How};
use soloist::workload::process::ProcessId;
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(20);

/// A child that ends with 7 as soon as its stdin is closed.
fn child() -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read line; exit 7"]).stdin(std::process::Stdio::piped()).spawn().unwrap()
}

fn id(child: &Child) -> ProcessId {
    ProcessId::of(child.id().try_into().unwrap()).unwrap()
}

#[tokio::test]
async fn the_reaper_collects_strays_and_neither_the_guard_nor_a_command() {
    let (mut guard, mut stray) = (child(), child());
    let commands = Commands::new(Some(id(&guard)));
    let reaper = tokio::spawn(commands.reaper().unwrap());
    for child in [&mut guard, &mut stray] {
        let id = id(child);
        drop(child.stdin.take());
        assert!(id.wait_gone(LIMIT).unwrap());
    }
    // Many at once, so that one often ends while another one's end is being looked at.
    let mut many = JoinSet::new();
    for _ in 0..100 {
        let commands = commands.clone();
        let call = Call { line: "exit 3".to_owned(), environment: Vec::new(), limit: LIMIT };
        many.spawn(async move { commands.run(&call).await.how });
    }
    assert_eq!(many.join_all().await, vec![How::Code(3); 100]);
    assert_eq!(guard.wait().unwrap().code(), Some(7));
    assert_eq!(stray.wait().unwrap_err().raw_os_error(), Some(nix::libc::ECHILD));
    reaper.abort();
}
