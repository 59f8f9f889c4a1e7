//! What `soloist controller` makes of pods on a real API server. No kubelet runs them: each test says what one would.
//! Whatever happens, never are more labelled as active than wanted, tokens grow, and the record names who is active.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::cluster::Cluster;
use testkit::controlled::{APP, PROMPT, Pods, Site, container, critical_container, terminated};
use testkit::quantiles::Quantiles;
use testkit::scenario::LIMIT;
use testkit::told::listen;
use testkit::wait::{holds_for, wait_until};

/// For what must not happen: many times longer than what must.
const QUIET: Duration = Duration::from_millis(700);

/// How often each failover is measured.
const ROUNDS: usize = 15;

const RUNNING: Value = Value::Null;

fn stays(pods: &Pods, names: &[&str]) -> Result<()> {
    let is_so = || pods.sight.now().active() == names;
    holds_for(&format!("only {names:?} are active"), QUIET, is_so).with_context(|| format!("{:#?}", pods.sight.now()))
}

/// What the record says: who, and the holder that `kubectl get leases` shows.
fn recorded(pods: &Pods) -> Result<(Vec<String>, String)> {
    let lease = pods.record()?;
    let text = lease["metadata"]["annotations"]["soloist.dev/active-pods"].as_str().context("no record")?;
    let record: Value = serde_json::from_str(text)?;
    let places = record["places"].as_array().context("no places")?;
    let names = places.iter().filter_map(|place| place["pod"].as_str().map(str::to_owned)).collect();
    Ok((names, lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn the_oldest_ready_pod_becomes_active_and_the_next_one_when_it_goes() -> Result<()> {
    let site = Site::new()?;
    let Site { pods, .. } = &site;
    // Where nobody is ready, one that is not would become active.
    pods.create("never-ready", &[container("main")])?;
    pods.up("p0")?;
    let _controller = site.lead("c1", &[])?;
    pods.wait_active(&["p0"])?;
    pods.up("p1")?;
    pods.wait_active(&["p0"])?;
    ensure!(recorded(pods)? == (vec!["p0".to_owned()], "p0".to_owned()), "{:?}", recorded(pods)?);
    let (mut plain, mut forced) = (Vec::new(), Vec::new());
    for round in 0..2 * ROUNDS {
        let [old, new, third] = [round, round + 1, round + 2].map(|number| format!("p{number}"));
        pods.up(&third)?;
        pods.wait_active(&[&old])?;
        if round % 2 == 0 {
            let since = pods.delete(&old)?;
            plain.push(nanos(pods.follows(since, &[&new])?));
            let is_there = pods.get(&old)?["metadata"]["labels"]["role"] == "standby";
            ensure!(is_there, "{old} does not stand by for its grace");
            pods.force_delete(&old)?;
        } else {
            let since = pods.force_delete(&old)?;
            forced.push(nanos(pods.follows(since, &[&new])?));
        }
        ensure!(recorded(pods)?.1 == new, "{:?}", recorded(pods)?);
    }
    println!(
        "delete call to both labels, ms (p50 p99 max of {ROUNDS}): plain {}, forced {}",
        Quantiles::of(plain),
        Quantiles::of(forced)
    );
    let transitions = pods.record()?["spec"]["leaseTransitions"].as_u64();
    ensure!(transitions == Some(2 * ROUNDS as u64 + 1), "{transitions:?} transitions");
    site.check()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[test]
fn with_stop_first_a_pod_keeps_its_traffic_until_it_is_gone() -> Result<()> {
    let (site, _controller) = Site::settled(&["--handover", "stop-first"], &["a", "b"])?;
    site.pods.delete("a")?;
    stays(&site.pods, &["a"])?;
    let since = site.pods.force_delete("a")?;
    site.pods.follows(since, &["b"])?;
    site.check()
}

#[test]
fn with_promote_after_stopped_only_the_kubelets_word_counts() -> Result<()> {
    let (site, controller) = Site::settled(&["--promote-after", "stopped"], &["a", "b", "c"])?;
    let Site { pods, .. } = &site;
    let since = pods.delete("a")?;
    pods.follows(since, &[])?;
    stays(pods, &[])?;
    // A container that has ended may begin again, and nobody has seen the end of one that is unknown.
    pods.say("a", &[("main", terminated("Completed"))])?;
    stays(pods, &[])?;
    pods.say("a", &[("main", terminated("ContainerStatusUnknown"))])?;
    pods.set_status("a", &json!({"phase": "Failed"}))?;
    stays(pods, &[])?;
    pods.set_status("a", &json!({"phase": "Running"}))?;
    let since = testkit::stamp::now();
    pods.say_over("a")?;
    pods.follows(since, &["b"])?;
    let since = pods.force_delete("b")?;
    pods.follows(since, &[])?;
    stays(pods, &[])?;
    ensure!(controller.log().contains("waiting for the kubelet's word"), "{}", controller.log());
    site.check()
}

#[test]
fn a_pod_that_loses_a_critical_container_is_replaced_and_then_deleted() -> Result<()> {
    let site = Site::new()?;
    let Site { pods, .. } = &site;
    let containers = [critical_container("main"), container("core"), container("beside")];
    for name in ["a", "b", "c"] {
        pods.up_with(name, &containers)?;
    }
    let _controller = site.lead("c1", &["--critical", "core"])?;
    pods.wait_active(&["a"])?;
    pods.say("a", &[("main", RUNNING), ("core", RUNNING), ("beside", terminated("Error"))])?;
    stays(pods, &["a"])?;
    ensure!(
        !pods.sight.now().pods.values().any(|pod| pod.is_deleting),
        "a container that is not critical changes nothing"
    );
    for (old, new, main, core) in
        [("a", "b", terminated("Error"), RUNNING), ("b", "c", RUNNING, terminated("OOMKilled"))]
    {
        let since = testkit::stamp::now();
        pods.say(old, &[("main", main), ("core", core), ("beside", RUNNING)])?;
        pods.follows(since, &[new])?;
        let is_deleted = |moment: &testkit::sight::Moment| {
            moment.active() == [new] && moment.pods.values().any(|pod| pod.name == old && pod.is_deleting)
        };
        pods.sight.wait(&format!("{old} to be deleted"), PROMPT, is_deleted)?;
    }
    let early = |moment: &testkit::sight::Moment| {
        moment.pods.values().any(|pod| pod.is_deleting && pod.role.as_deref() == Some("active"))
    };
    ensure!(!pods.sight.moments().iter().any(early), "deleted before another one was active");
    site.check()
}

#[test]
fn a_group_whose_pods_all_crash_is_not_hammered() -> Result<()> {
    let mut site = Site::new()?;
    for number in 0..3 {
        site.pods.up_with(&format!("p{number}"), &[critical_container("main")])?;
    }
    let controller = site.relayed("c1", &[])?;
    site.leads(&controller)?;
    site.pods.wait_active(&["p0"])?;
    // Whoever starts anew crashes again.
    for number in 0..3 {
        site.pods.say(&format!("p{number}"), &[("main", terminated("Error"))])?;
        site.pods.create(&format!("p{}", number + 3), &[critical_container("main")])?;
        site.pods.say(&format!("p{}", number + 3), &[("main", terminated("Error"))])?;
    }
    // Those that are on their way out, or gone.
    let gone = || -> BTreeSet<String> {
        let moments = site.pods.sight.moments();
        let seen: BTreeSet<&String> = moments.iter().flat_map(|moment| moment.pods.keys()).collect();
        let now = site.pods.sight.now();
        let stays = |uid: &String| now.pods.get(uid).is_some_and(|pod| !pod.is_deleting);
        seen.into_iter().filter(|uid| !stays(uid)).cloned().collect()
    };
    wait_until("the first ones to be deleted", LIMIT, || gone().len() >= 2)?;
    holds_for("two are deleted", QUIET * 3, || gone().len() == 2).with_context(|| format!("{:?}", gone()))?;
    let writes = site.writes("c1")?;
    println!("six pods that crash: two deleted with {writes} writes in all");
    ensure!(writes <= 30, "{:#?}", site.relay("c1")?.requests());
    site.check()
}

#[test]
fn labels_edited_by_hand_are_repaired_and_never_believed() -> Result<()> {
    let (site, _controller) = Site::settled(&[], &["a", "b"])?;
    let Site { pods, .. } = &site;
    let token = pods.get("a")?["metadata"]["annotations"]["soloist.dev/token"].clone();
    for (name, role) in [("a", Some("standby")), ("a", None), ("b", None), ("a", Some("x"))] {
        let since = testkit::stamp::now();
        pods.label(name, role)?;
        wait_until("the edit to be seen", LIMIT, || pods.sight.moments().iter().any(|one| one.at >= since))?;
        pods.wait_active(&["a"])?;
    }
    ensure!(pods.get("a")?["metadata"]["annotations"]["soloist.dev/token"] == token, "another token");
    site.check()?;
    let since = testkit::stamp::now();
    pods.label("b", Some("active"))?;
    let both = |moment: &testkit::sight::Moment| moment.active() == ["a", "b"];
    let edited = pods.sight.wait_since(since, "the edit", LIMIT, both)?;
    let repaired = pods.follows(edited + 1, &["a"])?;
    println!("a second label by hand was taken away after {repaired:?}");
    Ok(())
}

#[test]
fn a_pod_becomes_active_by_request_as_soon_as_it_is_ready() -> Result<()> {
    let (site, _controller) = Site::settled(&[], &["a", "b", "c"])?;
    let Site { pods, .. } = &site;
    pods.say_ready("c", false)?;
    pods.edit("c", &json!({"annotations": {"soloist.dev/become-active": "true"}}))?;
    stays(pods, &["a"])?;
    let since = testkit::stamp::now();
    pods.say_ready("c", true)?;
    pods.follows(since, &["c"])?;
    let asked = || pods.get("c").is_ok_and(|pod| pod["metadata"]["annotations"]["soloist.dev/become-active"].is_null());
    wait_until("the request to be taken away", LIMIT, asked)?;
    stays(pods, &["c"])?;
    pods.edit("b", &json!({"annotations": {"soloist.dev/priority": "5"}}))?;
    let since = pods.delete("c")?;
    pods.follows(since, &["b"])?;
    site.check()
}

#[test]
fn of_three_pods_two_are_active_and_never_three() -> Result<()> {
    let site = Site::new()?;
    let Site { pods, .. } = &site;
    for name in ["a", "b", "c", "d"] {
        pods.up(name)?;
    }
    let _controller = site.lead("c1", &["--active", "2"])?;
    pods.wait_active(&["a", "b"])?;
    let since = pods.delete("a")?;
    pods.follows(since, &["b", "c"])?;
    let since = pods.force_delete("c")?;
    pods.follows(since, &["b", "d"])?;
    ensure!(recorded(pods)?.1 == "b,d", "{:?}", recorded(pods)?);
    pods.sight.check(2)
}

#[test]
fn each_namespace_is_a_group_of_its_own() -> Result<()> {
    let site = Site::new()?;
    let cluster = Cluster::connect()?;
    let other = Pods::new(&cluster, &cluster.namespace()?, APP)?;
    for pods in [&site.pods, &other] {
        pods.up("a")?;
        pods.up("b")?;
    }
    let _controller = site.controller_of("c1", &[&site.pods.namespace, &other.namespace], &[])?;
    site.pods.wait_active(&["a"])?;
    other.wait_active(&["a"])?;
    let since = site.pods.delete("a")?;
    site.pods.follows(since, &["b"])?;
    stays(&other, &["a"])?;
    other.sight.check(1)?;
    site.check()
}

#[test]
fn a_datagram_is_sent_once_a_promotion_whoever_leads() -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(LIMIT))?;
    let target = format!("udp:{}/GoActive", socket.local_addr()?.port());
    let (site, mut first) = Site::settled(&["--notify", &target], &["a", "b"])?;
    let second = site.controller("c2", &["--notify", &target])?;
    second.wait_standby(LIMIT)?;
    let hear = || -> Result<Vec<u8>> {
        let mut text = [0; 64];
        let length = socket.recv(&mut text)?;
        Ok(text[..length].to_vec())
    };
    ensure!(hear()? == b"GoActive", "another text");
    let since = site.pods.delete("a")?;
    site.pods.follows(since, &["b"])?;
    ensure!(hear()? == b"GoActive", "another text");
    // Who leads next knows what the record says.
    let is_recorded = || site.pods.record().is_ok_and(|lease| lease["metadata"].to_string().contains("is_told"));
    wait_until("the record to say that it was told", LIMIT, is_recorded)?;
    first.signal(Signal::TERM)?;
    first.wait_exit(LIMIT)?;
    site.leads(&second)?;
    socket.set_read_timeout(Some(QUIET))?;
    ensure!(hear().is_err(), "told twice");
    site.check()
}

#[test]
fn a_request_is_made_until_it_is_understood_and_holds_nothing_up() -> Result<()> {
    let (port, heard) = listen("127.0.0.1", 2)?;
    let target = format!("http:{port}/role");
    let (site, _controller) = Site::settled(&["--notify", &target], &["a"])?;
    for _ in 0..3 {
        let notice = heard.recv_timeout(LIMIT)?;
        let token = site.pods.get("a")?["metadata"]["annotations"]["soloist.dev/token"].clone();
        let expected = json!({"schema": 1, "group": format!("{}/{APP}", site.pods.namespace), "member": "a",
            "role": "active", "fencing_token": token.as_str().and_then(|text| text.parse::<u64>().ok())});
        ensure!(expected.as_object().into_iter().flatten().all(|(key, value)| notice[key] == *value), "{notice}");
    }
    ensure!(heard.recv_timeout(QUIET).is_err(), "told again after it was understood");
    site.check()
}

#[test]
fn a_listener_that_never_understands_delays_no_failover() -> Result<()> {
    let (port, heard) = listen("127.0.0.1", usize::MAX)?;
    let target = format!("http:{port}/role");
    let (site, _controller) = Site::settled(&["--notify", &target], &["a", "b"])?;
    for _ in 0..6 {
        heard.recv_timeout(LIMIT)?;
    }
    let since = site.pods.delete("a")?;
    let took = site.pods.follows(since, &["b"])?;
    println!("a failover beside a listener that is always busy took {took:?}");
    site.check()
}

#[test]
fn whom_a_predecessor_has_labelled_stays_active() -> Result<()> {
    let site = Site::new()?;
    for name in ["a", "b"] {
        site.pods.up(name)?;
    }
    site.pods.label("a", Some("standby"))?;
    site.pods.label("b", Some("active"))?;
    site.pods.wait_active(&["b"])?;
    let before = site.pods.sight.moments().len();
    let _controller = site.lead("c1", &[])?;
    let is_recorded = || recorded(&site.pods).is_ok_and(|(_, holder)| holder == "b");
    wait_until("the record", LIMIT, is_recorded)?;
    let has_token = || site.pods.sight.now().pods.values().any(|pod| pod.name == "b" && pod.token.is_some());
    wait_until("its token", LIMIT, has_token)?;
    let moments = site.pods.sight.moments();
    ensure!(moments[before..].iter().all(|moment| moment.active() == ["b"]), "it lost its label: {moments:#?}");
    Ok(())
}
