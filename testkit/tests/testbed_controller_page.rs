//! A controller tells its groups over HTTP, as the documents say.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::controlled::{APP, Site};
use testkit::documents;
use testkit::group::binary;
use testkit::http::Server;
use testkit::scenario::LIMIT;
use testkit::wait::{wait_for, wait_until};

#[test]
fn the_groups_are_told_as_documented_and_a_failover_is_told_with_its_parts() -> Result<()> {
    let site = Site::new()?;
    site.cluster.define()?;
    for name in ["a", "b"] {
        site.pods.up(name)?;
    }
    site.pods.declare(&site.cluster, APP, &json!({}))?;
    let controller = site.lead_declared("c1", &["--http", "127.0.0.1:0"])?;
    site.pods.wait_active(&["a"])?;
    let (server, namespace) = (Server::of(&controller)?, &site.pods.namespace);
    let group = || server.get(&format!("/groups/{namespace}/{APP}")).and_then(|answer| answer.json());
    wait_until("the group to be fine", LIMIT, || group().is_ok_and(|group| group["standing"] == "fine"))?;
    let before = group()?;
    assert_eq!((&before["active"][0]["pod"], &before["ready"]), (&"a".into(), &2.into()));
    assert_eq!(before["members"][1]["role"], "standby");

    for (document, line) in
        documents::commands("curl").into_iter().filter(|(_, line)| documents::asks_a_controller(line))
    {
        let own = line.replace("127.0.0.1:9090", server.address()).replace("prod/", &format!("{namespace}/"));
        // Who listens is cut off by curl itself.
        let (time_s, code, word) = if line.contains("/events") { (3, 28, "event: groups") } else { (20, 0, "\"") };
        let output = Command::new("sh").args(["-c", &format!("{own} --fail --max-time {time_s}")]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.code() == Some(code) && text.contains(word), "{document}: {line}: {text}");
    }

    let metrics = server.get("/metrics")?.body;
    for (name, count) in documents::OF_A_CONTROLLER.iter().zip([1, 0, 0, 0]) {
        ensure!(metrics.contains(&format!("\n{name} {count}\n")), "{name} {count}: {metrics}");
    }

    site.pods.delete("a")?;
    site.pods.wait_active(&["b"])?;
    wait_until("the failover to be told", LIMIT, || {
        group().is_ok_and(|group| group["last_failover"]["pods"] == json!(["b"]) && group["active"][0]["pod"] == "b")
    })
    .with_context(|| format!("{:#?}", group()))?;
    let told = group()?;
    let has_parts = ["recorded_ms", "labelled_ms"].iter().all(|part| told["last_failover"][part].is_u64());
    ensure!(
        has_parts && told["active"][0]["fencing_token"].as_u64() > before["active"][0]["fencing_token"].as_u64(),
        "{told:#}"
    );
    let deleted =
        |told: &Value| told["members"].as_array().into_iter().flatten().any(|pod| pod["trouble"] == "is being deleted");
    ensure!(deleted(&told), "{told:#}");
    site.check()
}

/// What `soloist status` says of the group's Lease, as if members took part there.
fn status(site: &Site) -> Result<String> {
    let lock = format!("kubernetes://{}/{APP}", site.pods.namespace);
    let output = Command::new(binary("soloist")?).args(["status", "--lock", &lock]).output()?;
    ensure!(output.status.code() == Some(65), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn a_group_whose_pods_are_gone_is_shown_no_more_and_comes_again_with_a_larger_token() -> Result<()> {
    let site = Site::new()?;
    site.pods.up("a")?;
    let controller = site.lead("c1", &["--http", "127.0.0.1:0"])?;
    site.pods.wait_active(&["a"])?;
    let server = Server::of(&controller)?;
    let path = format!("/groups/{}/{APP}", site.pods.namespace);
    let token = |pod: &str| -> Option<u64> {
        let group = server.get(&path).ok()?.json().ok()?;
        let active = &group["active"][0];
        (active["pod"] == pod).then(|| active["fencing_token"].as_u64()).flatten()
    };
    let first = wait_for("the group to be shown", LIMIT, || token("a"))?;
    let told = status(&site)?;
    for part in [&format!("a is active with token {first}"), "kubectl describe lease", &path] {
        ensure!(told.contains(part), "{part}: {told}");
    }

    site.pods.force_delete("a")?;
    wait_until("the group to be gone", LIMIT, || server.get(&path).is_ok_and(|answer| answer.status == 404))?;
    site.pods.record().context("its record stays")?;
    site.pods.up("b")?;
    site.pods.wait_active(&["b"])?;
    let second = wait_for("the group to be shown again", LIMIT, || token("b"))?;
    ensure!(second > first, "{second} after {first}");
    site.check()
}
