use std::time::Instant;

use super::*;

fn commands() -> Commands {
    Commands::new(None)
}

fn call(line: &str) -> Call {
    Call { line: line.to_owned(), environment: Vec::new(), limit: Duration::from_secs(20) }
}

#[tokio::test]
async fn a_command_is_told_its_variables_and_its_end_is_known() {
    let environment = vec![("SOLOIST_ROLE", Some("standby".to_owned())), ("HOME", None)];
    let call = Call { environment, ..call("echo \"$SOLOIST_ROLE $HOME.\"; exit 3") };
    let ended = commands().run(&call).await;
    assert_eq!(ended, Ended { how: How::Code(3), said: "standby .".to_owned() });
    assert_eq!(ended.to_string(), "ended with code 3: standby .");
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named() {
    let ended = commands().run(&call("/no/such/check --now")).await;
    assert_eq!(ended.how, How::Code(127));
    assert!(ended.said.contains("/no/such/check"), "{ended}");
}

#[tokio::test]
async fn a_flood_does_not_block_the_command_and_is_kept_in_part() {
    let ended = commands().run(&call("head -c 3000000 /dev/zero | tr '\\0' x; exit 4")).await;
    assert_eq!(ended.how, How::Code(4));
    assert_eq!(ended.said.len(), 4096);
}

#[tokio::test]
async fn a_command_whose_time_is_up_is_killed_with_its_group() {
    let limit = Duration::from_millis(300);
    let hang = Call { limit, ..call("trap '' TERM; echo begun; sleep 1000 & sleep 1000") };
    let start = Instant::now();
    let ended = commands().run(&hang).await;
    assert_eq!(ended, Ended { how: How::TimedOut(limit), said: "begun".to_owned() });
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn what_stays_in_the_background_is_not_waited_for_and_ends_too() {
    let start = Instant::now();
    let ended = commands().run(&call("sleep 1000 & echo $!")).await;
    assert_eq!(ended.how, How::Code(0));
    assert!(start.elapsed() < Duration::from_secs(10));
    let left = ProcessId::of(ended.said.parse().unwrap());
    assert!(left.is_err() || left.is_ok_and(|left| left.wait_gone(Duration::from_secs(10)).unwrap()));
}

#[tokio::test]
async fn a_command_that_is_killed_and_reaped_by_somebody_else_says_nothing() {
    let commands = commands();
    let ended = commands.run(&call("kill -9 $$")).await;
    assert!(matches!(ended.how, How::Unknown(_)), "{ended}");
    let (running, _output) = commands.start(&call("exec sleep 1000")).unwrap();
    kill_process_group(running.pid, Signal::KILL).unwrap();
    running.ended().await;
    waitid(WaitId::Pid(running.pid), WaitIdOptions::EXITED).unwrap();
    assert!(matches!(running.how(), How::Unknown(_)));
}

#[tokio::test]
async fn a_call_that_is_given_up_kills_its_command() {
    let commands = commands();
    let (running, _output) = commands.start(&call("exec sleep 1000")).unwrap();
    let command = ProcessId::of(running.pid.as_raw_pid()).unwrap();
    drop(running);
    assert!(command.wait_gone(Duration::from_secs(10)).unwrap());
    assert!(commands.family().running.is_empty());
}
