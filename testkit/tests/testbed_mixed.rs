//! Groups of soloist members and members of client-go's election on one Lease of a real API server.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::client_go::{self, ClientGo, LEASE, POLL_MAX, RETRY_PERIOD};
use testkit::cluster::Cluster;
use testkit::ends::End;
use testkit::group::{Group, MARK};
use testkit::history::{Span, Violation};
use testkit::member::Member;
use testkit::relay::{Fault, Scope};
use testkit::stamp;
use testkit::wait::{holds_for, wait_for, wait_until, within};

/// What a soloist member waits for whoever is not.
const FOREIGN_WAIT: Duration = Duration::from_secs(12);
/// What a loaded machine adds to a moment, and the last renewal before an event takes from a wait.
const LATE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(40);
const PROBE_PACE_US: &str = "100";

/// A group on a Lease that nobody has used, or that does not exist.
struct Mixed {
    cluster: Cluster,
    namespace: String,
    group: Group,
}

/// The name of the Lease.
const NAME: &str = "app";

impl Mixed {
    fn new() -> Result<Self> {
        let cluster = Cluster::connect()?;
        let namespace = cluster.namespace()?;
        let mut group = Group::new()?;
        group.set_lock_url(&format!("kubernetes://{namespace}/{NAME}"));
        group.set("--lease", "4s");
        group.set_fresh(Duration::from_millis(50));
        Ok(Self { cluster, namespace, group })
    }

    /// A soloist member; the Lease is somebody else's already. It has announced itself when this returns: client-go
    /// gives its release up when it meets another write.
    fn soloist(&self, name: &str) -> Result<Member> {
        let member = Member::spawn(&self.group, name, &[], &[])?;
        member.wait_standby(LIMIT)?;
        let announced = || self.cluster.announced(&self.namespace, NAME);
        let is_there = || announced().is_ok_and(|members| members.iter().any(|member| member.name == name));
        wait_until("its announcement", LIMIT, is_there).with_context(|| member.log())?;
        Ok(member)
    }

    /// The first member of the group, which finds a Lease that is free at first sight.
    fn first_soloist(&self, name: &str) -> Result<(Member, Span)> {
        self.cluster.initial_lease(&self.namespace, NAME)?;
        let member = Member::spawn(&self.group, name, &[], &[])?;
        let active = member.wait_active(&self.group, LIMIT)?;
        Ok((member, active))
    }

    fn client_go(&self, name: &str) -> Result<ClientGo> {
        self.client_go_with(name, &["-release-on-cancel"])
    }

    fn client_go_with(&self, name: &str, options: &[&str]) -> Result<ClientGo> {
        let mut command = client_go::command(&self.namespace, NAME, name)?;
        command.args(options).arg(self.group.binary("probe")?).arg("--dir").arg(self.group.probe_dir());
        command.args(["--pace-us", PROBE_PACE_US]).env(MARK, self.group.folder());
        ClientGo::start(name, self.group.folder(), command)
    }

    /// The activation of whoever is called so, once it is the active one.
    fn active(&self, name: &str) -> Result<Span> {
        let own = || self.group.active().filter(|span| span.member == name);
        wait_for(&format!("{name} to be active"), LIMIT, own).with_context(|| self.group.logs())
    }

    fn next(&self, after: &Span) -> Result<Span> {
        self.group.wait_active_after(after.token, LIMIT)
    }

    /// Nobody was active from the end of `old` on for this long.
    fn gap(&self, old: &Span, new: &Span) -> Result<Duration> {
        let history = self.group.history();
        let gaps = history.gaps();
        let gap = gaps.iter().find(|gap| gap.from == old.token && gap.to == new.token);
        Ok(gap.with_context(|| format!("they do not follow upon each other:\n{history}"))?.length)
    }

    fn lease(&self) -> Result<Value> {
        let text = self.cluster.kubectl(&["get", "lease", NAME, "-n", &self.namespace, "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    fn spec(&self) -> Result<Value> {
        Ok(self.lease()?["spec"].clone())
    }

    fn wait_holder(&self, name: &str) -> Result<()> {
        wait_until(&format!("the Lease to name {name}"), LIMIT, || {
            self.spec().is_ok_and(|spec| spec["holderIdentity"] == name)
        })
    }

    /// The newest activation is still this one, and alive.
    fn goes_on(&self, active: &Span) -> Result<()> {
        wait_until("it to stamp", LIMIT, || self.group.active().is_some())?;
        let newest = self.group.history().spans.into_iter().map(|span| span.token).max();
        ensure!(newest == Some(active.token), "{active} was followed:\n{}", self.group.history());
        Ok(())
    }

    fn check(&self, activations: usize) -> Result<()> {
        self.group.check(activations, 2)
    }
}

const UNPROVEN: &str = "unproven: c1 is foreign";

fn terminate(mut member: Member) -> Result<()> {
    member.signal(Signal::TERM)?;
    let code = member.wait_exit_code(LIMIT)?;
    ensure!(code == 0 || code == 128 + 15, "a standby leaves with 0, an active one with its workload's: {code}");
    Ok(())
}

/// Waited for in full, and not for much longer.
fn is_about(waited: Duration, expected: Duration) -> Result<()> {
    ensure!(waited + RETRY_PERIOD * 2 >= expected, "waited {waited:?} instead of {expected:?}");
    within("the wait to be over", waited, expected + LATE)
}

/// The seconds after which it may start, as it has counted them down.
fn counted_down(log: &str) -> Vec<u64> {
    let rest = |line: &str| line.split_once("may start in ")?.1.split_once('s')?.0.parse().ok();
    log.lines().filter_map(rest).collect()
}

#[test]
fn members_are_replaced_one_by_one_in_both_directions_without_an_overlap() -> Result<()> {
    let mixed = Mixed::new()?;
    let legacy = [mixed.client_go("c1")?, mixed.client_go("c2")?];
    let first = mixed.active("c1")?;
    let [c1, c2] = legacy;
    let s1 = mixed.soloist("s1")?;
    ensure!(s1.log().contains("c1 is active, and foreign"), "{}", s1.log());
    c2.terminate()?;
    let s2 = mixed.soloist("s2")?;
    let latest = mixed.group.history().spans.into_iter().max_by_key(|span| span.first);
    ensure!(latest.is_some_and(|latest| latest.token == first.token), "nothing has moved yet");
    c1.terminate()?;

    let second = mixed.next(&first)?;
    is_about(mixed.gap(&first, &second)?, FOREIGN_WAIT)?;
    let c3 = mixed.client_go("c3")?;
    let (active, other) = if second.member == "s1" { (s1, s2) } else { (s2, s1) };
    terminate(active)?;
    let third = mixed.next(&second)?;
    let c4 = mixed.client_go("c4")?;
    terminate(other)?;
    let last = if third.member.starts_with('s') { mixed.next(&third)? } else { third };
    let takeover = mixed.group.history().gaps().into_iter().find(|gap| gap.to == last.token);
    ensure!(takeover.is_some_and(|gap| gap.length < LEASE), "a release of soloist is believed");
    ensure!(last.member == "c3" || last.member == "c4", "{last}");
    let (active, other) = if last.member == "c3" { (c3, c4) } else { (c4, c3) };
    active.terminate()?;
    mixed.next(&last)?;
    other.terminate()?;
    mixed.check(4)
}

#[test]
fn a_silent_client_go_holder_is_waited_for_three_leases_and_counted_down() -> Result<()> {
    let mixed = Mixed::new()?;
    let mut c1 = mixed.client_go_with("c1", &[])?;
    let old = mixed.active("c1")?;
    let s1 = mixed.soloist("s1")?;
    // Long enough for several renewals, each of which the member sees.
    holds_for("client-go leads", LEASE, || c1.has_led() && s1.elector_pid().is_ok())?;
    c1.signal_all(Signal::KILL)?;
    c1.wait()?;
    let new = mixed.next(&old)?;
    is_about(mixed.gap(&old, &new)?, FOREIGN_WAIT)?;
    let log = s1.log();
    let told = counted_down(&log);
    // Told late, it is a second less.
    let is_right = told.len() == 4 && told.iter().zip([8, 4, 2, 1]).all(|(told, rest)| [rest, rest - 1].contains(told));
    ensure!(is_right && log.contains("nothing new from c1 for "), "{told:?}\n{log}");
    ensure!(log.matches("c1 is active, and foreign").count() == 1, "renewals are not news:\n{log}");
    wait_until(UNPROVEN, LIMIT, || s1.log().contains(UNPROVEN)).with_context(|| s1.log())?;
    mixed.check(2)
}

#[test]
fn a_release_by_client_go_proves_nothing() -> Result<()> {
    let mixed = Mixed::new()?;
    let c1 = mixed.client_go("c1")?;
    let old = mixed.active("c1")?;
    let s1 = mixed.soloist("s1")?;
    c1.terminate()?;
    let spec = mixed.spec()?;
    ensure!(spec["holderIdentity"].as_str().unwrap_or_default().is_empty(), "released: {spec}");
    let new = mixed.next(&old)?;
    is_about(mixed.gap(&old, &new)?, FOREIGN_WAIT)?;
    let log = s1.log();
    ensure!(log.contains("the lock names nobody, and nothing proves that nobody is active: may start in "), "{log}");
    ensure!(matches!(counted_down(&log).first(), Some(7 | 8)), "{log}");
    mixed.check(2)
}

#[test]
fn a_release_by_soloist_lets_client_go_start_at_its_next_look() -> Result<()> {
    let mixed = Mixed::new()?;
    let (s1, old) = mixed.first_soloist("s1")?;
    let c1 = mixed.client_go("c1")?;
    ensure!(c1.log().contains("the leader is \"s1\""), "{}", c1.log());
    terminate(s1)?;
    let new = mixed.next(&old)?;
    ensure!(new.member == "c1", "{new}");
    let gap = mixed.gap(&old, &new)?;
    within("client-go's next look", gap, POLL_MAX + LATE / 2)?;
    mixed.check(2)
}

#[test]
fn client_go_waits_a_lease_for_a_soloist_holder_that_hangs_or_dies_and_meets_nothing_of_it() -> Result<()> {
    for end in [End::ElectorStopped, End::KeepersKilled] {
        let mixed = Mixed::new()?;
        let (s1, old) = mixed.first_soloist("s1")?;
        let _c1 = mixed.client_go("c1")?;
        end.apply(&mixed.group, &s1, &old)?;
        let new = mixed.next(&old)?;
        ensure!(new.member == "c1", "{new}");
        mixed.check(2)?;
    }
    Ok(())
}

/// What cannot be promised: nothing stops the command of a client-go member that does not run.
#[test]
fn a_client_go_holder_that_is_stopped_runs_on_beside_its_successor_and_the_takeover_says_unproven() -> Result<()> {
    let mixed = Mixed::new()?;
    let mut c1 = mixed.client_go("c1")?;
    let old = mixed.active("c1")?;
    let s1 = mixed.soloist("s1")?;
    let stopped = stamp::now();
    c1.signal(Signal::STOP)?;
    let is_s1 = |span: &Span| span.member == "s1" && span.slots.iter().all(|slot| slot.stamps >= 2);
    let new = wait_for("s1 to be active", LIMIT, || mixed.group.history().spans.into_iter().find(is_s1))?;
    is_about(Duration::from_nanos(new.first.saturating_sub(stopped)), FOREIGN_WAIT)?;
    ensure!(new.token > old.token, "{new} after {old}");
    wait_until(UNPROVEN, LIMIT, || s1.log().contains(UNPROVEN)).with_context(|| s1.log())?;
    let sees_both = || matches!(mixed.group.history().violations()[..], [Violation::Overlap { .. }]);
    wait_until("the probe to see both", LIMIT, sees_both).with_context(|| mixed.group.history().to_string())?;

    c1.signal(Signal::CONT)?;
    ensure!(!c1.wait()?.success(), "a member that finds its Lease lost leaves with an error");
    mixed.wait_holder("s1")?;
    mixed.goes_on(&new)
}

/// What client-go does since 1.34: a member that was paused in the middle of a renewal empties the holder of a Lease that
/// is another's by now.
#[test]
fn a_lease_that_a_paused_client_go_member_blanks_is_written_again_and_nobody_else_starts() -> Result<()> {
    let mixed = Mixed::new()?;
    let relay = mixed.cluster.relay(true)?;
    let kubeconfig = mixed.group.folder().join("kubeconfig");
    relay.write_kubeconfig(&kubeconfig, &json!({}))?;
    let kubeconfig = kubeconfig.to_string_lossy();
    let mut c1 = mixed.client_go_with("c1", &["-release-on-cancel", "-kubeconfig", &kubeconfig])?;
    mixed.active("c1")?;
    let s1 = mixed.soloist("s1")?;
    let s2 = mixed.soloist("s2")?;
    relay.inject_times(Scope::Writes, Fault::Hold, 1);
    wait_until("a renewal to be under way", LIMIT, || relay.held() == 1)?;
    c1.signal_all(Signal::STOP)?;
    let not_c1 = |span: &Span| span.member != "c1" && span.slots.iter().all(|slot| slot.stamps >= 2);
    let new = wait_for("soloist to be active", LIMIT, || mixed.group.history().spans.into_iter().find(not_c1))?;
    let (active, other) = if new.member == "s1" { (&s1, &s2) } else { (&s2, &s1) };
    let before = mixed.spec()?["leaseTransitions"].clone();

    c1.signal_all(Signal::CONT)?;
    ensure!(!c1.wait()?.success(), "{}", c1.log());
    let rewritten = "rewriting it without an extension";
    wait_until("the Lease to be written again", LIMIT, || active.log().contains(rewritten))
        .with_context(|| mixed.group.logs())?;
    mixed.wait_holder(&new.member)?;
    ensure!(mixed.spec()?["leaseTransitions"] == before, "the same activation");
    holds_for("nobody else starts", FOREIGN_WAIT + LATE, || !other.log().contains("active with token"))
        .with_context(|| mixed.group.logs())?;
    mixed.goes_on(&new)
}
