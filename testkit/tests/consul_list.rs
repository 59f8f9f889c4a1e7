//! Groups on Consul are listed below a prefix, and no other keys are.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::consul_lock::{LIMIT, Site};
use testkit::group::binary;
use testkit::member::Member;
use testkit::wait::wait_until;

fn list(words: &[&str]) -> Result<Output> {
    Command::new(binary("soloist")?).arg("list").args(words).output().context("failed to run soloist")
}

/// The locks below a prefix.
fn locks(prefix: &str) -> Result<Vec<String>> {
    let output = list(&[&format!("consul:///{prefix}/"), "-o", "json"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout)?;
    let groups = list["groups"].as_array().context("no groups")?;
    Ok(groups.iter().filter_map(|group| group["lock"].as_str().map(str::to_owned)).collect())
}

#[test]
fn only_keys_of_soloist_below_the_prefix_are_listed() -> Result<()> {
    let site = Site::new()?;
    let member = Member::spawn(&site.group, "a", &[], &[])?;
    member.wait_active(&site.group, LIMIT)?;
    let prefix = &site.prefix;
    // A group beside the prefix, whose name only begins with it.
    let beside = Site::at(&format!("{prefix}-b"))?;
    let other = Member::spawn(&beside.group, "x", &[], &[])?;
    other.wait_active(&beside.group, LIMIT)?;
    // A key of another program, and one that only looks like a lock.
    for key in [format!("{prefix}/config"), format!("{prefix}/other/.lock")] {
        site.consul.run(&["kv", "put", &key, "x"])?;
    }
    let lock = format!("consul:///{prefix}");
    wait_until("the group to be listed", LIMIT, || locks(prefix).is_ok_and(|found| found == [lock.clone()]))?;
    ensure!(locks("")?.contains(&lock), "not found from the root");
    let output = list(&[&format!("consul:///{prefix}/nothing")])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && text.starts_with("no group in "), "{text}");
    Ok(())
}
