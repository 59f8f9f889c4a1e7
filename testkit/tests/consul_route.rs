//! A service of Consul follows the active member: its tag is never on two instances, through every kind of end, and
//! whoever leaves is gone from it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::consul_lock::{LIMIT, Site};
use testkit::history::Span;
use testkit::member::Member;
use testkit::wait::{holds_for, wait_until};

/// What members are told besides.
struct Service {
    name: String,
    port: u16,
    /// Whether the application answers well.
    well: Arc<AtomicBool>,
    _server: JoinHandle<()>,
}

impl Service {
    /// With an application that answers on a free port, as long as this process lives.
    fn start(site: &Site) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let (port, well) = (listener.local_addr()?.port(), Arc::new(AtomicBool::new(true)));
        let shown = Arc::clone(&well);
        let server = std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let status = if shown.load(Ordering::Relaxed) { "200 OK" } else { "503 Service Unavailable" };
                // Who asks may have gone.
                let _ = stream.read(&mut [0; 1024]);
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        Ok(Self { name: Self::name(site), port, well, _server: server })
    }

    fn name(site: &Site) -> String {
        format!("svc-{}", site.prefix.replace('/', "-"))
    }

    fn options(&self) -> Vec<String> {
        let route = format!("--route=consul-service:{}", self.name);
        let port = format!("--consul-service-port={}", self.port);
        let rest = ["--consul-check-http=/health", "--consul-check-interval=1s", "--consul-service-address=127.0.0.1"];
        [route, port].into_iter().chain(rest.map(str::to_owned)).collect()
    }

    fn member(&self, site: &Site, name: &str) -> Result<Member> {
        let options = self.options();
        Member::spawn(&site.group, name, &options.iter().map(String::as_str).collect::<Vec<_>>(), &[])
    }

    fn catalog(&self) -> Result<Vec<Value>> {
        Ok(serde_json::from_str(&ask(&format!("/v1/catalog/service/{}?consistent", self.name))?)?)
    }

    /// The instances in the catalog: which member, and its tags.
    fn instances(&self) -> Result<Vec<(String, Vec<String>)>> {
        let shown = self.catalog()?;
        let member = |id: &str| id.strip_prefix(&format!("{}-", self.name)).unwrap_or_default().to_owned();
        let tags = |value: &Value| serde_json::from_value(value.clone()).unwrap_or_default();
        Ok(shown
            .iter()
            .map(|one| (member(one["ServiceID"].as_str().unwrap_or_default()), tags(&one["ServiceTags"])))
            .collect())
    }

    /// Which lock the instance of a member follows.
    fn meta(&self, member: &str) -> Result<String> {
        let shown = self.catalog()?;
        let id = format!("{}-{member}", self.name);
        let own = shown.iter().find(|one| one["ServiceID"] == id.as_str()).context("no instance")?;
        Ok(own["ServiceMeta"]["soloist-lock"].as_str().context("no lock")?.to_owned())
    }

    /// What the checks of all instances say.
    fn statuses(&self) -> Result<Vec<String>> {
        let shown: Vec<Value> = serde_json::from_str(&ask(&format!("/v1/health/checks/{}", self.name))?)?;
        Ok(shown.iter().map(|one| one["Status"].as_str().unwrap_or_default().to_owned()).collect())
    }

    fn active(&self) -> Result<Vec<String>> {
        let has_tag = |(_, tags): &(String, Vec<String>)| tags.iter().any(|tag| tag == "active");
        Ok(self.instances()?.into_iter().filter(has_tag).map(|(member, _)| member).collect())
    }

    /// The tag stays on this member's instance while all checks come to say this.
    fn keeps_its_tag(&self, span: &Span, status: &str) -> Result<()> {
        self.well.store(status == "passing", Ordering::Relaxed);
        wait_until(status, LIMIT, || self.statuses().is_ok_and(|all| all.iter().all(|one| one == status)))?;
        self.wait_active(span)?;
        holds_for("the tag stays", CHECKED * 2, || self.active().is_ok_and(|all| all == [span.member.clone()]))
            .with_context(|| format!("{status}: {:?}", self.instances()))
    }

    /// Until one and only one instance has the tag, this member's, with the token of its activation.
    fn wait_active(&self, span: &Span) -> Result<()> {
        let token = format!("soloist-token={}", span.token);
        let is_right = || {
            let instances = self.instances().unwrap_or_default();
            self.active().is_ok_and(|active| active == [span.member.clone()])
                && instances.iter().any(|(member, tags)| *member == span.member && tags.contains(&token))
        };
        wait_until(&format!("the tag on {}", span.member), LIMIT, is_right)
            .with_context(|| format!("{:?}", self.instances()))
    }
}

fn ask(path: &str) -> Result<String> {
    let address = std::env::var("CONSUL_HTTP_ADDR").context("no CONSUL_HTTP_ADDR")?;
    let output = std::process::Command::new("curl").args(["-sf", &format!("{address}{path}")]).output()?;
    ensure!(output.status.success(), "{path}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// How often an instance is checked.
const CHECKED: Duration = Duration::from_secs(1);

/// A planned handover takes a few milliseconds, and so does a look.
const LOOKS_MIN: usize = 3;

/// Looks at the catalog again and again on one connection: the most active ones at any time.
struct Sampled {
    end: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<usize>>>,
}

impl Sampled {
    fn start(service: &str) -> Result<Self> {
        let (end, service) = (Arc::new(AtomicBool::new(false)), service.to_owned());
        let (ended, looks) = (Arc::clone(&end), Arc::new(AtomicUsize::new(0)));
        let looked = Arc::clone(&looks);
        let address = std::env::var("CONSUL_HTTP_ADDR").context("no CONSUL_HTTP_ADDR")?;
        let address = address.trim_start_matches("http://").to_owned();
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            let mut stream = std::net::TcpStream::connect(&address)?;
            while !ended.load(Ordering::Relaxed) {
                let path = format!("/v1/catalog/service/{service}?tag=active&consistent");
                let instances = answer(&mut stream, &path)?;
                most = most.max(instances);
                looked.fetch_add(1, Ordering::Relaxed);
            }
            Ok(most)
        });
        Ok(Self { end, looks, thread: Some(thread) })
    }

    /// Never two, in many looks.
    fn check(mut self) -> Result<()> {
        let looks = || self.looks.load(Ordering::Relaxed);
        // A handover may be over within two of them.
        wait_until("looks at the catalog", LIMIT, || looks() >= LOOKS_MIN)?;
        self.end.store(true, Ordering::Relaxed);
        let joined = self.thread.take().context("no thread")?.join();
        let most = joined.map_err(|_| anyhow::anyhow!("the sampler panicked"))??;
        let looks = self.looks.load(Ordering::Relaxed);
        eprintln!("at most {most} active in {looks} looks");
        ensure!(most == 1, "{most} active in {looks} looks: violations: two at once or nobody");
        Ok(())
    }
}

/// One request on a connection that stays; how many objects the list in the answer has.
fn answer(stream: &mut std::net::TcpStream, path: &str) -> Result<usize> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: consul\r\n\r\n")?;
    let mut text = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "Consul closed the connection");
        text.extend_from_slice(&buffer[..read]);
        let shown = String::from_utf8_lossy(&text);
        let Some((head, body)) = shown.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let length: usize = length.with_context(|| format!("no length: {head}"))?;
        if body.len() >= length {
            let list: Vec<Value> = serde_json::from_str(body).with_context(|| body.to_owned())?;
            return Ok(list.len());
        }
    }
}

fn pair(site: &Site, service: &Service) -> Result<(Vec<Member>, Span)> {
    let a = service.member(site, "a")?;
    let active = a.wait_active(&site.group, LIMIT)?;
    let b = service.member(site, "b")?;
    b.wait_standby(LIMIT)?;
    wait_until("both instances", LIMIT, || service.instances().is_ok_and(|all| all.len() == 2))?;
    service.wait_active(&active)?;
    Ok((vec![a, b], active))
}

fn hands_over(end: impl FnOnce(&Site, &[Member], &Span) -> Result<()>) -> Result<()> {
    let site = Site::new()?;
    let service = Service::start(&site)?;
    let (members, active) = pair(&site, &service)?;
    let sampled = Sampled::start(&service.name)?;
    end(&site, &members, &active)?;
    let next = site.group.wait_active_after(active.token, LIMIT)?;
    service.wait_active(&next)?;
    sampled.check()?;
    site.check(2)
}

#[test]
fn the_tag_follows_a_planned_handover_and_who_leaves_is_gone() -> Result<()> {
    let site = Site::new()?;
    let service = Service::start(&site)?;
    let (members, active) = pair(&site, &service)?;
    let sampled = Sampled::start(&service.name)?;
    members[0].signal(Signal::TERM)?;
    let next = site.group.wait_active_after(active.token, LIMIT)?;
    service.wait_active(&next).with_context(|| site.group.logs())?;
    sampled.check()?;
    wait_until("one instance", LIMIT, || service.instances().is_ok_and(|all| all.len() == 1))?;
    site.check(2)
}

#[test]
fn the_tag_follows_a_crash_of_the_command() -> Result<()> {
    hands_over(|site, _, active| site.group.end_workload(active, 3))
}

#[test]
fn the_tag_goes_from_a_dead_member_to_the_next_at_one_instant() -> Result<()> {
    hands_over(|_, members, _| members[0].signal(Signal::KILL))
}

#[test]
fn the_tag_goes_from_a_stopped_member_to_the_next_and_stays_there() -> Result<()> {
    hands_over(|_, members, _| members[0].signal(Signal::STOP))
}

/// Consul stores a new result of a check together with the tags that the agent was told last.
#[test]
fn the_tag_stays_where_it_is_when_checks_change_their_mind() -> Result<()> {
    let site = Site::new()?;
    let service = Service::start(&site)?;
    service.well.store(false, Ordering::Relaxed);
    let (members, active) = pair(&site, &service)?;
    service.keeps_its_tag(&active, "passing")?;
    service.keeps_its_tag(&active, "critical")?;
    members[0].signal(Signal::TERM)?;
    let next = site.group.wait_active_after(active.token, LIMIT)?;
    service.wait_active(&next)?;
    wait_until("one instance", LIMIT, || service.instances().is_ok_and(|all| all.len() == 1))?;
    service.keeps_its_tag(&next, "passing")?;
    site.check(2)
}

/// The agent of a dead member stores what it knew with the next result of its check.
#[test]
fn the_tag_that_the_agent_of_a_dead_member_puts_back_is_taken_away_again() -> Result<()> {
    let site = Site::new()?;
    let service = Service::start(&site)?;
    let (members, active) = pair(&site, &service)?;
    service.keeps_its_tag(&active, "passing")?;
    members[0].signal(Signal::KILL)?;
    let next = site.group.wait_active_after(active.token, LIMIT)?;
    service.wait_active(&next)?;
    service.keeps_its_tag(&next, "critical")?;
    ensure!(service.instances()?.len() == 2, "{:?}", service.instances());
    site.check(2)
}

#[test]
fn what_somebody_changes_by_hand_is_put_right() -> Result<()> {
    let site = Site::new()?;
    let service = Service::start(&site)?;
    let (members, active) = pair(&site, &service)?;
    let id = |member: &str| format!("{}-{member}", service.name);
    let by_hand = format!("-meta=soloist-lock={}", service.meta("b")?);
    let is_right_again = |times: usize| {
        let seen = || members[0].log().matches("others had changed where traffic goes: it goes").count();
        wait_until("it to be seen", LIMIT, || seen() == times).with_context(|| members[0].log())?;
        service.wait_active(&active).with_context(|| members[0].log())
    };
    site.consul.run(&["services", "register", "-name", &service.name, "-id", &id("b"), "-tag", "active", &by_hand])?;
    is_right_again(1)?;
    site.consul.run(&["services", "deregister", "-id", &id("a")])?;
    is_right_again(2)?;
    site.check(1)
}

#[test]
fn an_instance_is_checked_and_says_how_it_is() -> Result<()> {
    let site = Site::new()?;
    let service = Service::start(&site)?;
    let member = service.member(&site, "a")?;
    member.wait_active(&site.group, LIMIT)?;
    let is = |wanted: &str| {
        let path = format!("/v1/health/checks/{}", service.name);
        ask(&path).is_ok_and(|text| {
            text.contains(&format!("\"Status\": \"{wanted}\"")) || text.contains(&format!("\"Status\":\"{wanted}\""))
        })
    };
    wait_until("the check to pass", LIMIT, || is("passing"))?;
    service.well.store(false, Ordering::Relaxed);
    wait_until("the check to fail", LIMIT, || is("critical"))
}

#[test]
fn an_instance_that_its_agent_forgot_is_registered_anew_before_the_next_activation() -> Result<()> {
    hands_over(|site, members, _| {
        let other = ask("/v1/agent/services")?;
        let services: serde_json::Map<String, Value> = serde_json::from_str(&other)?;
        let own = Service::name(site) + "-b";
        ensure!(services.contains_key(&own), "no instance of b: {other}");
        site.consul.run(&["services", "deregister", "-id", &own])?;
        members[0].signal(Signal::TERM)
    })
}

#[test]
fn a_service_of_others_is_left_alone() -> Result<()> {
    let site = Site::new()?;
    let service = Service::start(&site)?;
    let id = format!("{}-a", service.name);
    site.consul.run(&["services", "register", "-name", &service.name, "-id", &id, "-tag", "precious"])?;
    let mut member = service.member(&site, "a")?;
    let status = member.wait_exit(LIMIT)?;
    ensure!(status.code() == Some(78), "{status:?}: {}", member.log());
    ensure!(service.instances()?.iter().any(|(_, tags)| tags == &["precious"]), "{:?}", service.instances());
    let _ = site.consul.run(&["services", "deregister", "-id", &id]);
    Ok(())
}

/// Longer than the agents' own look at the catalog may take to begin.
#[test]
fn an_agent_that_looks_at_the_catalog_anew_keeps_the_tags() -> Result<()> {
    let site = Site::new()?;
    let service = Service::start(&site)?;
    let (members, active) = pair(&site, &service)?;
    // Each registration makes the agent compare what it has with what the catalog has.
    site.consul.run(&["services", "register", "-name", &format!("other-{}", service.name)])?;
    testkit::wait::holds_for("the tag stays", Duration::from_secs(5), || {
        service.active().is_ok_and(|shown| shown == [active.member.clone()])
    })?;
    drop(members);
    Ok(())
}
