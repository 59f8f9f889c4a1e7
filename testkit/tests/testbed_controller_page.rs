//! A controller tells its groups over HTTP, as the documents say.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::controlled::{APP, Site};
use testkit::documents;
use testkit::http::Server;
use testkit::scenario::LIMIT;
use testkit::wait::wait_until;

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
        let output = Command::new("sh").args(["-c", &format!("{own} --fail --max-time 1")]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        // Who listens is cut off by curl itself.
        let (expected, word) = if line.contains("/events") { (28, "event: groups") } else { (0, "\"") };
        ensure!(output.status.code() == Some(expected) && text.contains(word), "{document}: {line}: {text}");
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
