//! What people do to a key of Consul and to its session while a group uses them: never two are active, nobody takes
//! absence for a release, and Consul's own lock-delay is waited for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::consul_group::Pair;
use testkit::relayed::{LEASE, Placed};
use testkit::scenario::{LIMIT, check, follow};
use testkit::stamp;
use testkit::wait::{holds_for, wait_for, wait_until, within};

/// What Consul keeps a key from everybody for, once the session that held it was lost.
const LOCK_DELAY: Duration = Duration::from_secs(15);
/// How long those who see a stranger's key wait, once no session holds it: three leases of a stranger.
const FOREIGN_WAIT: Duration = Duration::from_secs(45);
/// A renewal, and a second for a busy machine.
const NOTICED: Duration = Duration::from_secs(2);
/// The flags of a key that is a lock of `consul lock`.
const LOCK_FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;

fn key(pair: &Pair) -> String {
    format!("{}/.lock", pair.group.prefix)
}

/// The session that holds the key.
fn session(pair: &Pair) -> Result<String> {
    pair.group.entry(&pair.consul)?.session.context("nobody holds the key")
}

/// Writes the key as `operation` says, whatever it was.
fn write(pair: &Pair, verb: &str, rest: &Value) -> Result<()> {
    let mut operation = json!({"Verb": verb, "Key": key(pair), "Flags": LOCK_FLAGS});
    if let (Some(fields), Some(rest)) = (operation.as_object_mut(), rest.as_object()) {
        fields.extend(rest.clone());
    }
    pair.consul.transact(&[operation])
}

/// For some leases there is never more than one; in the end there is one.
fn one_at_a_time(pair: &Pair) -> Result<()> {
    let group = &pair.group.group;
    holds_for("nothing overlaps", LEASE * 3, || group.history().violations().is_empty())?;
    wait_until("somebody to be active", LIMIT, || group.active().is_some()).with_context(|| group.logs())?;
    group.check(1, 2)
}

/// The workload that was active at the instant `at` ended soon after it.
fn a_stopped_soon_after(pair: &Pair, at: u64) -> Result<()> {
    wait_until("a to stop", LIMIT, || pair.group.group.active().is_none()).with_context(|| pair.group.group.logs())?;
    let spans = pair.group.group.history().spans;
    let old = spans.iter().find(|span| span.token == pair.active.token).context("the first one is lost")?;
    let went_on = Duration::from_nanos(old.last.saturating_sub(at));
    ensure!(went_on <= NOTICED, "a went on for {went_on:?}\n{}", pair.group.group.logs());
    Ok(())
}

#[test]
fn a_session_that_is_destroyed_stops_the_workload_and_the_next_one_waits_for_the_lock_delay() -> Result<()> {
    let pair = &Pair::placed()?;
    let session = session(pair)?;
    let before = stamp::now();
    pair.consul.destroy(&session)?;
    let at = stamp::now();
    a_stopped_soon_after(pair, at)?;
    let handover = follow(&pair.group.group, &pair.active, at).with_context(|| pair.group.group.logs())?;
    let waited = handover.from_event;
    let since_before = Duration::from_nanos(handover.new.first.saturating_sub(before));
    ensure!(since_before >= LOCK_DELAY, "{since_before:?} is shorter than Consul allows");
    within("the next one to be active", waited, LOCK_DELAY + NOTICED).with_context(|| pair.group.group.logs())?;
    check(&pair.group.group, 2, &pair.active)
}

#[test]
fn a_standby_whose_session_is_destroyed_takes_over_as_before() -> Result<()> {
    let pair = &Pair::placed()?;
    let name = format!("soloist b at '{}'", pair.group.prefix);
    let of_b = wait_for("b's session", LIMIT, || {
        let sessions = pair.consul.call("GET", "/v1/session/list?consistent", &Value::Null).ok()?.json();
        let of_b = sessions.as_array()?.iter().find(|one| one["Name"] == name.as_str())?;
        of_b["ID"].as_str().map(str::to_owned)
    })?;
    pair.consul.destroy(&of_b)?;
    pair.members[0].signal(Signal::TERM)?;
    let handover = follow(&pair.group.group, &pair.active, stamp::now())?;
    handover.was_proved()?;
    handover.came_within(NOTICED).with_context(|| pair.group.group.logs())?;
    check(&pair.group.group, 2, &pair.active)
}

/// The holder takes the key back, and nobody else has started meanwhile.
fn a_takes_it_back(pair: &Pair) -> Result<()> {
    wait_until("a to hold the key again", LEASE, || pair.holder().is_ok_and(|holder| holder == "a"))
        .with_context(|| pair.group.group.logs())?;
    one_at_a_time(pair)?;
    let spans = pair.group.group.history().spans;
    ensure!(spans.len() == 1, "others became active:\n{}{}", pair.group.group.history(), pair.group.group.logs());
    Ok(())
}

#[test]
fn a_deleted_key_lets_nobody_else_in() -> Result<()> {
    let pair = &Pair::placed()?;
    pair.consul.run(&["kv", "delete", &key(pair)])?;
    a_takes_it_back(pair)
}

#[test]
fn a_record_that_was_overwritten_is_written_again() -> Result<()> {
    let pair = &Pair::placed()?;
    write(pair, "set", &json!({"Value": STANDARD.encode("nonsense")}))?;
    a_takes_it_back(pair)
}

#[test]
fn a_key_that_was_released_by_hand_is_taken_again() -> Result<()> {
    let pair = &Pair::placed()?;
    write(pair, "unlock", &json!({"Value": "", "Session": session(pair)?}))?;
    a_takes_it_back(pair)
}

#[test]
fn a_key_that_was_overwritten_for_another_use_stops_the_workload_and_is_left_alone() -> Result<()> {
    let pair = &Pair::placed()?;
    pair.consul.run(&["kv", "put", &key(pair), "precious"])?;
    wait_until("a to stop", LIMIT, || pair.group.group.active().is_none()).with_context(|| pair.group.group.logs())?;
    holds_for("nobody else becomes active", LEASE * 2, || pair.group.group.history().spans.len() == 1)?;
    ensure!(pair.group.entry(&pair.consul)?.value == b"precious", "it was overwritten");
    let log = pair.members[0].log();
    ensure!(log.contains("used by another program"), "not said why:\n{log}");
    pair.consul.run(&["kv", "delete", &key(pair)])?;
    follow(&pair.group.group, &pair.active, stamp::now()).with_context(|| pair.group.group.logs())?;
    check(&pair.group.group, 2, &pair.active)
}

#[test]
fn a_foreign_session_that_took_the_key_stops_the_workload_and_keeps_everybody_out_while_it_lives() -> Result<()> {
    let pair = &Pair::placed()?;
    let stranger = pair.consul.session()?;
    let delete = json!({"Verb": "delete", "Key": key(pair)});
    let take = json!({"Verb": "lock", "Key": key(pair), "Flags": LOCK_FLAGS, "Value": "", "Session": stranger});
    pair.consul.transact(&[delete, take])?;
    a_stopped_soon_after(pair, stamp::now())?;
    holds_for("nobody else becomes active", LEASE * 4, || pair.group.group.history().spans.len() == 1)
        .with_context(|| pair.group.group.logs())?;
    ensure!(pair.group.entry(&pair.consul)?.session.as_deref() == Some(stranger.as_str()), "it was taken away");
    // As `consul lock` leaves.
    write(pair, "unlock", &json!({"Value": "", "Session": stranger}))?;
    let at = stamp::now();
    let next = pair.group.group.wait_active_after(pair.active.token, FOREIGN_WAIT + LIMIT)?;
    let waited = Duration::from_nanos(next.first.saturating_sub(at));
    ensure!(waited + NOTICED >= FOREIGN_WAIT, "{waited:?} is too soon");
    check(&pair.group.group, 2, &pair.active)
}
