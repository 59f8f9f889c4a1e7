//! `soloist sidecar --via` beside `soloist run --via` on a real API server: the election is in one container, the workload in another.
//! Each wrapper is PID 1 of a PID namespace of its own, as in a container.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use testkit::cluster::Cluster;
use testkit::ends::End;
use testkit::group::binary;
use testkit::history::Span;
use testkit::lease_group::{LEASE, LeaseGroup, NAMESPACE};
use testkit::member::Member;
use testkit::scenario::{Handover, LIMIT, check, follow, hand_over};
use testkit::stamp;
use testkit::statements::slots::{self, all_active};
use testkit::wait::{holds_for, wait_for, wait_until, within};

/// What a handover with a proof takes at most on a loaded machine.
const PROOF_MAX: Duration = Duration::from_millis(1500);
/// How much more than a lease the next one may take.
const BEYOND: Duration = Duration::from_millis(1500);

/// A group whose members are pairs.
struct Pairs {
    cluster: Cluster,
    group: LeaseGroup,
}

/// A sidecar and its application.
struct Pair {
    sidecar: Member,
    app: Member,
}

impl Pairs {
    fn new() -> Result<Self> {
        let cluster = Cluster::connect()?;
        let group = LeaseGroup::new(&cluster)?;
        Ok(Self { cluster, group })
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.group.group.folder().join(format!("via-{name}/app.sock"))
    }

    fn sidecar(&mut self, name: &str) -> Result<Member> {
        if !self.group.has_relay(name) {
            self.group.add_relay(&self.cluster, name, &serde_json::json!({}))?;
        }
        let socket = self.socket(name);
        let access = ["--kubeconfig".into(), self.group.kubeconfig(name).into_os_string()];
        self.group.group.member(name).options(access).sidecar(&socket)
    }

    fn app(&self, name: &str, options: &[&str]) -> Result<Member> {
        let starter = self.group.group.member(&format!("{name}-app")).wrapper(NAMESPACE).via(&self.socket(name));
        starter.options(options.iter().copied()).probe::<&str>(&[])
    }

    /// `a` active and `b` standing by, with these options for what runs the workloads.
    fn start(&mut self, options: &[&str]) -> Result<([Pair; 2], Span)> {
        let a = Pair { sidecar: self.sidecar("a")?, app: self.app("a", options)? };
        a.sidecar.wait_active(&self.group.group, LIMIT).with_context(|| self.group.group.logs())?;
        let b = Pair { sidecar: self.sidecar("b")?, app: self.app("b", options)? };
        b.wait_ready()?;
        let active = a.sidecar.wait_active(&self.group.group, LIMIT)?;
        Ok(([a, b], active))
    }

    /// Asks for a switchover once the other one is known to be fit.
    fn switch_over(&self, active: &Span) -> Result<Span> {
        let asked = || {
            let mut command = Command::new(binary("soloist").ok()?);
            let lock = format!("kubernetes://{}/{}", self.group.namespace, self.group.lease);
            let output = command.args(["switchover", "--lock", &lock]).output().ok()?;
            output.status.success().then_some(())
        };
        wait_for("a switchover", LIMIT, asked).with_context(|| self.group.group.logs())?;
        self.group.group.wait_active_after(active.token, LIMIT)
    }

    fn handed_over(&self, handover: &Handover) -> Result<()> {
        handover.was_proved()?;
        handover.came_within(PROOF_MAX).with_context(|| self.group.group.logs())?;
        check(&self.group.group, 2, &handover.old)
    }
}

impl Pair {
    fn wait_ready(&self) -> Result<()> {
        self.sidecar.wait_standby(LIMIT)?;
        let is_connected = || self.app.own_log().contains("connected to the sidecar");
        wait_until("the application to be let in", LIMIT, is_connected).with_context(|| self.app.log())
    }
}

#[test]
fn each_way_in_which_an_application_ends_is_proved_and_the_next_one_follows() -> Result<()> {
    // A stopped guard is found out by the wrapper within its patience.
    for end in End::ALL.into_iter().filter(|end| *end != End::ElectorStopped) {
        let mut pairs = Pairs::new()?;
        let ([a, _b], active) = pairs.start(&[])?;
        let handover = hand_over(&pairs.group.group, &[a.app], &active, end)?;
        let patience = if end == End::GuardStopped { LEASE } else { Duration::ZERO };
        handover.was_proved().with_context(|| end.to_string())?;
        within(&format!("the next one after {end}"), handover.from_event, PROOF_MAX + patience)?;
        check(&pairs.group.group, 2, &active).with_context(|| end.to_string())?;
    }
    Ok(())
}

#[test]
fn a_wrapper_that_is_stopped_costs_a_lease_and_nothing_runs_beside_the_next_one() -> Result<()> {
    let mut pairs = Pairs::new()?;
    let ([mut a, _b], active) = pairs.start(&[])?;
    let handover = hand_over(&pairs.group.group, &[a.app], &active, End::ElectorStopped)?;
    ensure!(handover.why.contains("ran out"), "{}", handover.why);
    handover.came_within(LEASE * 2)?;
    ensure!(a.sidecar.wait_exit_code(LIMIT)? == 75, "{}", a.sidecar.log());
    check(&pairs.group.group, 2, &active)
}

#[test]
fn the_order_in_which_a_pod_is_stopped_does_not_matter() -> Result<()> {
    for sidecar_first in [true, false] {
        let mut pairs = Pairs::new()?;
        let ([mut a, _b], active) = pairs.start(&[])?;
        let at = stamp::now();
        let order = if sidecar_first { [&a.sidecar, &a.app] } else { [&a.app, &a.sidecar] };
        for member in order {
            member.signal(Signal::TERM)?;
        }
        pairs.handed_over(&follow(&pairs.group.group, &active, at)?)?;
        ensure!(a.sidecar.wait_exit_code(LIMIT)? == 0, "{}", a.sidecar.log());
        let code = a.app.wait_exit_code(LIMIT)?;
        // Stopped as the active one it has the workload's code, and stopped after that its own.
        ensure!(code == 143 || (sidecar_first && code == 0), "{code}: {}", a.app.log());
    }
    Ok(())
}

#[test]
fn a_sidecar_that_is_killed_lets_the_workload_run_to_its_deadline_at_most() -> Result<()> {
    let mut pairs = Pairs::new()?;
    let ([a, _b], active) = pairs.start(&[])?;
    let at = stamp::now();
    a.sidecar.signal(Signal::KILL)?;
    let handover = follow(&pairs.group.group, &active, at)?;
    ensure!(handover.why.contains("ran out"), "{}", handover.why);
    handover.came_within(LEASE + BEYOND)?;
    let ran_on = Duration::from_nanos(handover.old.last.saturating_sub(at));
    ensure!(ran_on > Duration::ZERO && ran_on < LEASE, "it ran on for {ran_on:?}");
    check(&pairs.group.group, 2, &active)?;

    // The application waits for the next run of the sidecar, and is its own again.
    drop(a.sidecar);
    let again = Pair { sidecar: pairs.sidecar("a")?, app: a.app };
    again.sidecar.wait_standby(LIMIT)?;
    let connected = || again.app.own_log().matches("connected to the sidecar").count() == 2;
    wait_until("the application to be let in again", LIMIT, connected).with_context(|| again.app.log())?;
    let second = handover.new;
    wait_until("the restarted one to be fit", LIMIT, || {
        again.sidecar.own_log().contains("an application is connected")
    })?;
    drop(_b);
    let third = pairs.group.group.wait_active_after(second.token, LIMIT)?;
    ensure!(third.member == "a", "{third}");
    check(&pairs.group.group, 3, &second)
}

#[test]
fn a_sidecar_that_is_stopped_does_not_keep_the_workload_running() -> Result<()> {
    let mut pairs = Pairs::new()?;
    let ([a, _b], active) = pairs.start(&[])?;
    let at = stamp::now();
    a.sidecar.signal(Signal::STOP)?;
    let handover = follow(&pairs.group.group, &active, at)?;
    handover.came_within(LEASE + BEYOND)?;
    a.sidecar.signal(Signal::CONT)?;
    a.sidecar.wait_standby(LIMIT)?;
    check(&pairs.group.group, 2, &active)
}

#[test]
fn who_stays_is_a_standby_again_when_its_command_has_ended() -> Result<()> {
    let mut pairs = Pairs::new()?;
    let ([mut a, b], active) = pairs.start(&["--on-exit", "standby"])?;
    let handover = hand_over(&pairs.group.group, std::slice::from_ref(&a.app), &active, End::WorkloadKilled)?;
    pairs.handed_over(&handover)?;
    ensure!(a.app.try_exit()?.is_none(), "{}", a.app.log());
    a.sidecar.wait_standby(LIMIT)?;
    let back = hand_over(&pairs.group.group, &[b.app], &handover.new, End::WorkloadCrash)?;
    ensure!(back.new.member == "a", "{}", back.new);
    check(&pairs.group.group, 3, &handover.new)
}

#[test]
fn without_an_application_nobody_becomes_active_and_a_second_one_is_sent_away() -> Result<()> {
    let mut pairs = Pairs::new()?;
    let sidecar = pairs.sidecar("a")?;
    sidecar.wait_standby(LIMIT)?;
    holds_for("nobody is active", LEASE, || pairs.group.group.history().spans.is_empty())
        .with_context(|| pairs.group.group.logs())?;
    let app = pairs.app("a", &[])?;
    sidecar.wait_active(&pairs.group.group, LIMIT).with_context(|| pairs.group.group.logs())?;
    let second =
        pairs.group.group.member("second").wrapper(NAMESPACE).via(&pairs.socket("a")).run(&["sleep", "1000"])?;
    let refused = || second.own_log().contains("another application is connected already");
    wait_until("the second one to be sent away", LIMIT, refused).with_context(|| second.log())?;
    drop(app);
    // It is let in when the first one is gone.
    wait_until("it to be let in", LIMIT, || second.own_log().contains("the workload runs"))
        .with_context(|| second.log())
}

#[test]
fn an_application_that_was_handed_over_stays_and_stands_by() -> Result<()> {
    let mut pairs = Pairs::new()?;
    let ([mut a, b], active) = pairs.start(&[])?;
    let next = pairs.switch_over(&active)?;
    ensure!(next.member == "b", "{next}");
    a.sidecar.wait_standby(LIMIT)?;
    let back = pairs.switch_over(&next)?;
    ensure!(back.member == "a", "{back}");
    ensure!(a.app.try_exit()?.is_none(), "{}", a.app.log());
    let nothing = "nothing of the workload is left";
    wait_until(nothing, LIMIT, || b.app.own_log().contains(nothing)).with_context(|| b.app.log())?;
    check(&pairs.group.group, 3, &next)
}

#[test]
fn of_three_applications_two_are_active_where_two_may_be() -> Result<()> {
    let mut pairs = Pairs::new()?;
    pairs.cluster.initial_lease(&pairs.group.namespace, &format!("{}.2", pairs.group.lease))?;
    pairs.group.group.set_slots(2)?;
    let all: Vec<Pair> = ["a", "b", "c"]
        .into_iter()
        .map(|name| Ok(Pair { sidecar: pairs.sidecar(name)?, app: pairs.app(name, &[])? }))
        .collect::<Result<_>>()?;
    let active = all_active(&pairs.group.group)?;
    let index = all.iter().position(|pair| pair.sidecar.name() == active[1].member).context("nobody's activation")?;
    wait_until("the third one to be fit", LIMIT, || {
        all.iter().all(|pair| pair.sidecar.own_log().contains("an application is connected"))
    })?;
    End::ElectorKilled.apply(&pairs.group.group, &all[index].app, &active[1])?;
    pairs.group.group.wait_active_in(2, active[1].token, LIMIT).with_context(|| pairs.group.group.logs())?;
    slots::check(&pairs.group.group, 1)
}

#[test]
fn what_cannot_be_bound_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
    let open = folder.path().join("app.sock").display().to_string();
    let long = format!("/{}/app.sock", "x".repeat(120));
    let lock = ["--lock", "kubernetes://default/app"];
    let cases: [(&[&str], i32, &str); 8] = [
        (&["run", "--via", &open, "--", "true"], 78, "must be the first one of its container"),
        (&["run", "--via", &open, "--lock", "./x.lock", "--", "true"], 64, "--lock"),
        (&["run", "--via", &open, "--lease", "4s", "--", "true"], 64, "--lease"),
        (&["run", "--via", &open, "--on-exit", "restart", "--", "true"], 64, "exit or standby"),
        (&["run", "--via", &long, "--", "true"], 64, "bytes"),
        (&["run", "--via", &open, "--", "/no/such/command"], 127, "/no/such/command"),
        (&["sidecar", lock[0], lock[1], "--via", &open], 77, "others can write"),
        (&["sidecar", lock[0], lock[1], "--via", &long], 64, "bytes"),
    ];
    for (arguments, code, part) in cases {
        let output = Command::new(binary("soloist")?).args(arguments).output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(code) && said.contains(part), "{arguments:?}: {:?} {said}", output.status);
    }
    Ok(())
}
