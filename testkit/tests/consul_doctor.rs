//! `soloist doctor` on a real Consul: what a member does is tried, and nothing of it stays.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::consul_lock::{LIMIT, Site};
use testkit::group::binary;
use testkit::member::Member;
use testkit::wait::wait_until;

fn doctor(lock: &str) -> Result<Output> {
    let words = ["doctor", "--probes", "5", "-o", "json", "--lock", lock];
    Command::new(binary("soloist")?).args(words).output().context("failed to run soloist")
}

fn findings(output: &Output) -> Result<Vec<Value>> {
    let report: Value = serde_json::from_slice(&output.stdout)?;
    Ok(report["findings"].as_array().cloned().unwrap_or_default())
}

fn is(findings: &[Value], check: &str, level: &str) -> bool {
    findings.iter().any(|finding| finding["check"] == check && finding["level"] == level)
}

#[test]
fn what_a_member_does_is_tried_and_taken_back() -> Result<()> {
    let site = Site::new()?;
    let member = Member::spawn(&site.group, "a", &[], &[])?;
    member.wait_active(&site.group, LIMIT)?;
    let sessions = || -> Result<usize> {
        let all = site.consul.call("GET", "/v1/session/list", &json!(null))?.json();
        let of_the_doctor = all.as_array().into_iter().flatten().filter(|one| one["Name"] == "soloist doctor");
        Ok(of_the_doctor.count())
    };
    wait_until("the member to announce itself", LIMIT, || site.keys().is_ok_and(|keys| keys.len() == 2))?;
    let before = site.keys()?;
    let examined = || doctor(&format!("consul:///{}", site.prefix)).and_then(|output| findings(&output));
    let checks = ["lock", "timing", "latency", "permissions", "clock"];
    let is_well = || examined().is_ok_and(|found| checks.iter().all(|check| is(&found, check, "ok")));
    // It has something to say of a machine that is late.
    wait_until("nothing to complain of", LIMIT, is_well).with_context(|| format!("{:?}", examined()))?;
    assert_eq!((site.keys()?, sessions()?), (before, 0), "something was left behind");
    let nobody = doctor("consul://127.0.0.1:1/app")?;
    ensure!(nobody.status.code() == Some(1) && is(&findings(&nobody)?, "lock", "problem"), "{nobody:?}");
    Ok(())
}
