use std::time::Duration;

use super::*;
use crate::error::Code;

fn terms(store: Store, lease: &str) -> Terms {
    let timing = settings::timing_on(store, lease, Some(2 << 30)).unwrap();
    let health = settings::health::rules(&settings::health::Raw::default()).unwrap();
    Terms { store, timing, stop_grace: Duration::from_secs(10), health }
}

/// The page shows what the verb prints, to the letter.
#[test]
fn the_document_shows_what_is_printed() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/timing.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (store, lease) in [(Store::File, "15s"), (Store::Kubernetes, "15s")] {
        let terms = terms(store, lease);
        let text = text(&terms, &terms.cases(), 80);
        assert!(page.contains(&format!("```\n{text}\n```")), "docs/timing.md does not show this:\n{text}");
    }
}

#[test]
fn programs_get_every_term_and_every_phase() {
    let terms = terms(Store::Consul, "15s");
    let json = serde_json::to_value(Explanation::of(&terms, &terms.cases())).unwrap();
    assert_eq!((&json["schema"], &json["store"]), (&1.into(), &"consul".into()));
    assert_eq!((&json["timing"]["kill_after_ms"], &json["timing"]["rho"]), (&10_000.0.into(), &0.1.into()));
    for event in json["events"].as_array().unwrap() {
        let sum: f64 =
            event["phases"].as_array().unwrap().iter().map(|phase| phase["worst_ms"].as_f64().unwrap()).sum();
        assert!((sum - event["worst_ms"].as_f64().unwrap()).abs() < 0.1, "{event}");
        assert!(event["event"].is_string() && event["what"].is_string(), "{event}");
    }
}

#[test]
fn a_timing_that_cannot_be_is_refused_as_by_run() {
    for (store, lease) in [(Store::File, "1s"), (Store::Kubernetes, "4500ms"), (Store::Consul, "61s")] {
        let failure = settings::timing_on(store, lease, None).unwrap_err();
        assert_eq!(failure.code, Code::Configuration, "{store}: {failure}");
        assert!(failure.hint.is_some_and(|hint| hint.starts_with("use --lease ")), "{store}");
    }
}
