//! The definition of declared groups is taken away while a controller looks after some: nothing happens to the pods, and it
//! goes on when they are declared again. Alone in its file: the definition is there for a whole cluster.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use testkit::controlled::{APP, Site};
use testkit::scenario::LIMIT;
use testkit::wait::{holds_for, wait_until};

#[test]
fn without_the_definition_pods_stay_as_they_are_until_it_is_back() -> Result<()> {
    let site = Site::new()?;
    let pods = &site.pods;
    site.cluster.define()?;
    for name in ["a", "b"] {
        pods.up(name)?;
    }
    pods.declare(&site.cluster, APP, &json!({}))?;
    let controller = site.lead_declared("c1", &[])?;
    pods.wait_active(&["a"])?;
    site.cluster.kubectl(&["delete", "crd", "activestandbys.soloist.dev"])?;
    wait_until("the group to be forgotten", LIMIT, || controller.log().contains("nobody wants this group"))?;
    wait_until("the cause to be named", LIMIT, || controller.log().contains("--print-crd"))?;
    pods.delete("a")?;
    holds_for("a keeps its label", Duration::from_millis(700), || pods.sight.now().active() == ["a"])?;
    site.cluster.define()?;
    pods.declare(&site.cluster, APP, &json!({}))?;
    pods.wait_active(&["b"])?;
    site.check()
}
