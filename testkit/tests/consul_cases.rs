//! `consul lock` and soloist under that name: the same arguments, the same exit code, the same lines, the same keys. What
//! differs is said here, case by case.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use testkit::consul_lock::{Kind, LIMIT, Site};
use testkit::group::MARK;
use testkit::process;
use testkit::wait::wait_until;

/// What an invocation left behind.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    code: Option<i32>,
    out: Vec<String>,
    err: Vec<String>,
    /// All keys under the prefix afterwards.
    keys: Vec<String>,
}

/// `consul lock` with `words`, in which `PREFIX` stands for the prefix.
fn command(site: &Site, kind: Kind, words: &[&str]) -> Result<Command> {
    let words: Vec<String> = words.iter().map(|word| word.replace("PREFIX", &site.prefix)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let input = std::fs::File::open("/proc/version")?;
    let mut command = site.command(kind, &words);
    command.stdin(Stdio::from(input)).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn run(site: &Site, kind: Kind, words: &[&str], variables: &BTreeMap<&str, &str>) -> Result<Outcome> {
    let output = command(site, kind, words)?.envs(variables).output().context("failed to run consul lock")?;
    outcome(site, &output)
}

/// Sends it SIGTERM once its command has made the file `running` beside the group's own.
fn terminate(site: &Site, kind: Kind, words: &[&str]) -> Result<Outcome> {
    let running = site.group.folder().join("running");
    let child = command(site, kind, words)?.spawn().context("failed to start consul lock")?;
    wait_until("the command to run", LIMIT, || std::fs::remove_file(&running).is_ok())?;
    process::signal(child.id().try_into()?, Signal::TERM)?;
    outcome(site, &child.wait_with_output()?)
}

/// The number of its command is another one each time.
fn without_numbers(line: String) -> String {
    match line.rsplit_once(" child pid ") {
        Some((before, _)) => format!("{before} child pid N"),
        None => line,
    }
}

fn outcome(site: &Site, output: &Output) -> Result<Outcome> {
    let lines = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).replace(&site.prefix, "PREFIX");
        text.lines().map(|line| without_numbers(line.to_owned())).collect::<Vec<_>>()
    };
    let code = output.status.code().or(output.status.signal().map(|signal| 128 + signal));
    let keys = site.keys()?.iter().map(|key| key.replace(&site.prefix, "PREFIX")).collect();
    Ok(Outcome { code, out: lines(&output.stdout), err: lines(&output.stderr), keys })
}

/// Both programs, one after the other on the same prefix.
fn both(words: &[&str], variables: &[(&str, &str)]) -> Result<(Outcome, Outcome)> {
    let site = Site::new()?;
    let variables = variables.iter().copied().collect();
    let theirs = run(&site, Kind::Theirs, words, &variables)?;
    let ours = run(&site, Kind::Ours, words, &variables)?;
    Ok((theirs, ours))
}

fn same(words: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let (theirs, ours) = both(words, variables)?;
    ensure!(theirs == ours, "consul lock {}:\n{theirs:#?}\nsoloist:\n{ours:#?}", words.join(" "));
    Ok(())
}

#[test]
fn the_command_runs_as_it_did() -> Result<()> {
    for words in [
        &["PREFIX", "echo", "hi"][..],
        &["/PREFIX", "echo", "hi"],
        &["PREFIX/deeper//x/", "echo", "hi"],
        &["PREFIX", "echo", "$CONSUL_LOCK_HELD"],
        &["PREFIX", "echo", "\"a  b\"", "c"],
        &["PREFIX", "echo a;", "echo b >&2"],
        &["-shell=false", "PREFIX", "echo", "$HOME", "a  b"],
        &["-name", "N", "PREFIX", "echo", "hi"],
        &["-n", "1", "-monitor-retry", "0", "-stale", "PREFIX", "true"],
        &["-try=5s", "PREFIX", "true"],
        &["-timeout", "5s", "PREFIX", "true"],
        &["--", "PREFIX", "true"],
    ] {
        same(words, &[])?;
    }
    same(&["PREFIX", "echo", "$0"], &[("SHELL", "/bin/bash")])?;
    same(&["PREFIX", "cat"], &[])?;
    same(&["-pass-stdin", "PREFIX", "cat"], &[])
}

#[test]
fn its_end_is_told_as_it_was() -> Result<()> {
    for words in [
        &["PREFIX", "exit 3"][..],
        &["-child-exit-code", "PREFIX", "exit 3"],
        &["-child-exit-code", "PREFIX", "true"],
        &["-child-exit-code", "PREFIX", "kill -9 $$"],
        &["PREFIX", "kill -15 $$"],
        &["-verbose", "PREFIX", "echo", "hi"],
        &["-verbose", "PREFIX", "exit 3"],
        &["-verbose", "-pass-stdin", "PREFIX", "cat"],
        &["-shell=false", "PREFIX", "/does/not/exist"],
        &["-child-exit-code", "-shell=false", "PREFIX", "/does/not/exist"],
        &["-shell=false", "PREFIX", "no-such-command-anywhere"],
        &["-shell=false", "PREFIX", "/etc/passwd"],
    ] {
        same(words, &[])?;
    }
    Ok(())
}

#[test]
fn its_end_by_sigterm_is_told_as_it_was() -> Result<()> {
    let site = Site::new()?;
    // No shell: of the rest of a tree, which only soloist ends, a shell would tell.
    let command =
        |habit: &str| format!("$SIG{{TERM}} = {habit}; open F, '>', \"$ENV{{{MARK}}}/running\"; sleep 1 while 1");
    let both = |script: &str| -> Result<(Outcome, Outcome)> {
        let words = ["-verbose", "-child-exit-code", "-shell=false", "PREFIX", "perl", "-e", script];
        Ok((terminate(&site, Kind::Theirs, &words)?, terminate(&site, Kind::Ours, &words)?))
    };
    for code in [0, 3] {
        let obeys = format!("sub {{ select undef, undef, undef, 0.3; print \"bye\\n\"; exit {code} }}");
        let (theirs, ours) = both(&command(&obeys))?;
        ensure!(theirs == ours, "exit {code}: {theirs:#?} {ours:#?}");
        ensure!(ours.out.iter().any(|line| line == "Child terminated"), "{ours:?}");
    }
    // The other program does not wait for the end of what it kills, and may say nothing of it.
    let (theirs, ours) = both(&command("'IGNORE'"))?;
    let told = |outcome: &Outcome| (outcome.code, outcome.out.clone(), outcome.keys.clone());
    ensure!(told(&theirs) == told(&ours), "{theirs:#?} {ours:#?}");
    Ok(())
}

#[test]
fn arguments_that_make_no_sense_are_refused_in_the_same_words() -> Result<()> {
    for words in [
        &[][..],
        &["PREFIX"],
        &["-n", "0", "PREFIX", "true"],
        &["-n", "-1", "PREFIX", "true"],
        &["-timeout", "-1s", "PREFIX", "true"],
        &["-monitor-retry", "-1", "PREFIX", "true"],
    ] {
        same(words, &[])?;
    }
    // The usage that follows is each program's own.
    for words in [
        &["-bogus", "PREFIX", "true"][..],
        &["-n", "x", "PREFIX", "true"],
        &["-timeout", "abc", "PREFIX", "true"],
        &["-shell=perhaps", "PREFIX", "true"],
        &["-name"],
    ] {
        let (theirs, ours) = both(words, &[])?;
        ensure!((theirs.code, theirs.err.first()) == (ours.code, ours.err.first()), "{words:?}: {theirs:?} {ours:?}");
    }
    let (theirs, ours) = both(&["-help"], &[])?;
    ensure!((theirs.code, theirs.out.first()) == (ours.code, ours.out.first()), "{theirs:?} {ours:?}");
    Ok(())
}

#[test]
fn a_key_of_another_use_and_a_lock_that_is_held_are_refused_in_the_same_words() -> Result<()> {
    let site = Site::new()?;
    site.consul.run(&["kv", "put", &format!("{}/.lock", site.prefix), "precious"])?;
    let variables = BTreeMap::new();
    let [theirs, ours] = [Kind::Theirs, Kind::Ours].map(|kind| run(&site, kind, &["PREFIX", "true"], &variables));
    ensure!(theirs? == ours?, "a key of another use");

    let site = Site::new()?;
    let mut holder = site.contend(Kind::Theirs, "holder", &[])?;
    site.wait_active("holder", LIMIT)?;
    let words = ["-verbose", "-timeout", "1s", "PREFIX", "true"];
    let [theirs, ours] = [Kind::Theirs, Kind::Ours].map(|kind| run(&site, kind, &words, &variables));
    let (theirs, ours) = (theirs?, ours?);
    ensure!(theirs == ours, "a lock that is held: {theirs:#?} {ours:#?}");
    holder.terminate()?;
    Ok(())
}

#[test]
fn while_it_is_held_the_store_shows_the_same_keys() -> Result<()> {
    let words = ["PREFIX", "\"$CONSUL\" kv get -keys -recurse PREFIX"];
    let (theirs, ours) = both(&words, &[])?;
    ensure!(theirs == ours && ours.out == ["PREFIX/.lock"], "{theirs:?} {ours:?}");
    ensure!(ours.keys.is_empty(), "{ours:?}");
    Ok(())
}

#[test]
fn an_unreachable_agent_and_a_limit_are_refused_in_own_words() -> Result<()> {
    let (theirs, ours) = both(&["-http-addr=127.0.0.1:1", "PREFIX", "true"], &[])?;
    let begins =
        |outcome: &Outcome| outcome.err.len() == 1 && outcome.err[0].starts_with("Error querying Consul agent: ");
    ensure!(begins(&theirs) && begins(&ours) && theirs.code == ours.code, "{theirs:?} {ours:?}");
    let site = Site::new()?;
    let ours = run(&site, Kind::Ours, &["-n", "2", "PREFIX", "true"], &BTreeMap::new())?;
    ensure!(ours.code == Some(1) && ours.err.len() == 1, "{ours:?}");
    Ok(())
}

#[test]
fn other_verbs_of_consul_are_refused() -> Result<()> {
    let site = Site::new()?;
    let mut command = Command::new(site.program(Kind::Ours));
    let output = command.arg("members").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && said.contains("consul members"), "{said}");
    Ok(())
}

#[test]
fn a_program_that_was_given_as_the_prefix_is_the_command() -> Result<()> {
    let site = Site::new()?;
    let words = [
        "-name",
        "PREFIX",
        "/bin/bash",
        "-c",
        "echo \"$1 $CONSUL_LOCK_HELD\"; \"$CONSUL\" kv get -keys -recurse PREFIX",
        "x",
        "a  b",
    ];
    let ours = run(&site, Kind::Ours, &words, &BTreeMap::new())?;
    ensure!(ours.out == ["a  b true", "PREFIX/.lock"] && ours.code == Some(0), "{ours:?}");
    ensure!(ours.err.len() == 1 && ours.err[0].contains("taking -name PREFIX as the prefix"), "{ours:?}");
    Ok(())
}

#[test]
fn a_loop_around_a_command_that_ends_at_once_does_not_spin() -> Result<()> {
    let site = Site::new()?;
    let began = Instant::now();
    run(&site, Kind::Ours, &["PREFIX", "true"], &BTreeMap::new())?;
    ensure!(began.elapsed() >= Duration::from_secs(1), "it ended after {:?}", began.elapsed());
    Ok(())
}
