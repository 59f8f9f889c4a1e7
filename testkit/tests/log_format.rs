//! Log lines for programs: one JSON object each, with the fields that docs/run.md names.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Map, Value};
use testkit::documents::root;
use testkit::group::Group;
use testkit::member::Member;
use testkit::scenario::LIMIT;
use testkit::wait::wait_until;

/// The fields of the table that begins with `| field |` in docs/run.md.
fn documented() -> Result<BTreeSet<String>> {
    let document = std::fs::read_to_string(root().join("docs/run.md"))?;
    let (_, table) = document.split_once("| field |").context("no table of fields")?;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names = rows.filter_map(|row| row.split('|').nth(1));
    Ok(names.flat_map(|names| names.split(',')).map(|name| name.trim().trim_matches('`').to_owned()).collect())
}

fn lines(member: &Member) -> Result<Vec<Map<String, Value>>> {
    let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("no JSON object: {line}"));
    member.log().lines().map(parse).collect()
}

#[test]
fn every_line_is_an_object_with_documented_fields() -> Result<()> {
    let group = Group::new()?;
    let options = ["--log-format", "json"];
    let mut a = Member::spawn(&group, "a", &options, &[])?;
    let active = a.wait_active(&group, LIMIT)?;
    let b = Member::spawn(&group, "b", &options, &[])?;
    b.wait_standby(LIMIT)?;
    a.signal(Signal::TERM)?;
    group.wait_active_after(active.token, LIMIT)?;
    a.wait_exit(LIMIT)?;
    wait_until("b to say that its workload runs", LIMIT, || b.log().contains("the workload runs"))?;
    let documented = documented()?;
    ensure!(documented.len() >= 6, "{documented:?}");
    for line in [lines(&a)?, lines(&b)?].concat() {
        for field in ["timestamp", "level", "message"] {
            ensure!(line.get(field).is_some_and(Value::is_string), "no {field}: {line:?}");
        }
        ensure!(line.keys().all(|field| documented.contains(field)), "{line:?}");
    }
    let said = |message: &str, field: &str| -> Result<Value> {
        let lines = lines(&a)?;
        let is_meant = |line: &&Map<String, Value>| line["message"].as_str().is_some_and(|text| text.contains(message));
        let line = lines.iter().find(is_meant).with_context(|| format!("nothing about {message}: {lines:?}"))?;
        Ok(line.get(field).cloned().unwrap_or_default())
    };
    assert_eq!(said("active with token", "role")?, "active");
    ensure!(said("the workload runs", "pid")?.as_u64().is_some_and(|pid| pid > 1));
    ensure!(said("the workload runs", "containment")?.is_string());
    assert_eq!(said("nothing of the workload is left", "role")?, "ended");
    Ok(())
}
