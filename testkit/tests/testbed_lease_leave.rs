//! Who leaves takes its announcement along, or it would be named as a successor as long as that counts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use testkit::cluster::Cluster;
use testkit::lease_group::LeaseGroup;
use testkit::member::Member;
use testkit::relay::{Fault, Scope};
use testkit::scenario::LIMIT;
use testkit::wait::{holds_for, wait_until};

/// So many leave at once.
const CROWD: usize = 30;

fn announced(cluster: &Cluster, group: &LeaseGroup) -> Result<Vec<String>> {
    let members = cluster.announced(&group.namespace, &group.lease)?;
    Ok(members.into_iter().map(|member| member.name).collect())
}

/// Those and nobody else have announced themselves.
fn wait_announced(cluster: &Cluster, group: &LeaseGroup, names: &[&str]) -> Result<()> {
    let are_there = || announced(cluster, group).is_ok_and(|members| members == names);
    wait_until("the announcements", LIMIT, are_there).with_context(|| group.group.logs())
}

#[test]
fn of_many_that_leave_at_once_none_stays_announced() -> Result<()> {
    let cluster = Cluster::connect()?;
    let mut group = LeaseGroup::with_lease(&cluster, Duration::from_secs(15))?;
    let (stays, _) = group.start(&cluster, &["a"])?;
    let names: Vec<String> = (10..10 + CROWD).map(|number| format!("m{number}")).collect();
    let mut crowd: Vec<Member> = names.iter().map(|name| group.spawn(&cluster, name, &[])).collect::<Result<_>>()?;
    let mut all: Vec<&str> = vec!["a"];
    all.extend(names.iter().map(String::as_str));
    wait_announced(&cluster, &group, &all)?;
    for member in &crowd {
        member.signal(Signal::TERM)?;
    }
    for member in &mut crowd {
        member.wait_exit(LIMIT)?;
    }
    let left = announced(&cluster, &group)?;
    ensure!(left == ["a"], "announced still: {left:?}\n{}", group.group.logs());
    drop(stays);
    Ok(())
}

#[test]
fn an_announcement_under_way_does_not_outlive_who_leaves() -> Result<()> {
    let cluster = Cluster::connect()?;
    // Renewed so seldom that nothing else is written meanwhile.
    let mut group = LeaseGroup::with_lease(&cluster, Duration::from_secs(60))?;
    let (_a, _) = group.start(&cluster, &["a"])?;
    wait_announced(&cluster, &group, &["a"])?;
    group.add_relay(&cluster, "b", &serde_json::json!({}))?;
    let late = Duration::from_millis(400);
    group.relay("b")?.inject_times(Scope::Writes, Fault::Late(late), 1);
    let mut b = group.spawn(&cluster, "b", &[])?;
    wait_until("b to announce itself", LIMIT, || group.relay("b").is_ok_and(|relay| relay.fired() == 1))?;
    b.signal(Signal::TERM)?;
    b.wait_exit(LIMIT)?;
    holds_for("b is not announced", late * 2, || announced(&cluster, &group).is_ok_and(|names| names == ["a"]))
}
