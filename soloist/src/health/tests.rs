use election::Token;
use tokio::time::timeout;

use super::*;
use crate::settings::health::Rules;
use crate::snapshot::{Announcement, Publisher, Tenure};

const LIMIT: Duration = Duration::from_secs(20);

fn settings(line: &str) -> Settings {
    let rules = Rules {
        interval: Duration::from_millis(100),
        timeout: LIMIT,
        rise: 2,
        fall: 1,
        start: Duration::from_millis(1),
    };
    Settings { check: Check::Exec(line.to_owned()), rules, subject: Subject::Cold }
}

fn announced(name: &str, healthy: bool) -> Announcement {
    Announcement {
        name: name.to_owned(),
        nonce: name.to_owned(),
        role: "standby".to_owned(),
        healthy,
        why: None,
        leaving: false,
        version: "0".to_owned(),
        since_unix_ms: 0,
        at_unix_ms: 0,
    }
}

fn standby(snapshot: &mut Snapshot) {
    (snapshot.role, snapshot.tenure, snapshot.workload) = (Role::Standby, None, Workload::None);
}

fn active(snapshot: &mut Snapshot) {
    let (stop_at, kill_at) = (Instant::default(), Instant::default());
    snapshot.role = Role::Active;
    snapshot.tenure = Some(Tenure { activation: Activation(7), token: Token(7), stop_at, kill_at });
    snapshot.workload = Workload::Running { pid: 1, since_unix_us: 0 };
}

#[test]
fn jitter_only_shortens_and_by_a_tenth_at_most() {
    let interval = Duration::from_secs(5);
    assert_eq!(jittered(interval, 0), interval);
    for bits in [1, 1023, u64::MAX] {
        let jittered = jittered(interval, bits);
        assert!(jittered < interval && jittered > Duration::from_millis(4_500), "{jittered:?}");
    }
}

#[test]
fn a_check_is_told_its_part_and_a_token_only_while_active() {
    let mut snapshot = Snapshot::new("g", "a", LIMIT, without_check(), 0);
    let value = |snapshot: &Snapshot, name| environment(snapshot).into_iter().find(|one| one.0 == name).unwrap().1;
    assert_eq!(value(&snapshot, "SOLOIST_ROLE").as_deref(), Some("standby"));
    assert_eq!(value(&snapshot, "SOLOIST_FENCING_TOKEN"), None);
    active(&mut snapshot);
    assert_eq!(value(&snapshot, "SOLOIST_ROLE").as_deref(), Some("active"));
    assert_eq!(value(&snapshot, "SOLOIST_FENCING_TOKEN").as_deref(), Some("7"));
    assert_eq!(value(&snapshot, "SOLOIST_GROUP").as_deref(), Some("g"));
}

#[tokio::test]
async fn who_gave_up_is_held_down_until_nobody_else_is_fit() {
    let settings = settings("test \"$SOLOIST_ROLE\" = standby");
    let first = Snapshot::new("g", "a", LIMIT, before_the_first(Some(&settings)), 0);
    let publisher = Publisher::new(first);
    let (sender, mut orders) = mpsc::channel(1);
    let commands = Commands::new(None);
    let task = tokio::spawn(run(settings, commands, publisher.subscribe(), sender));
    // As the elector does: what is ordered is published.
    let mut next = async || {
        let order = timeout(LIMIT, orders.recv()).await.unwrap().unwrap();
        let Order::Health(health) = order else { panic!("{order:?}") };
        publisher.update(|snapshot| snapshot.health = health.clone());
        health
    };
    assert!(next().await.healthy);
    publisher.update(|snapshot| {
        active(snapshot);
        snapshot.members = vec![announced("a", true), announced("b", true)];
    });
    assert!(!next().await.healthy);
    publisher.update(standby);
    // The check succeeds at once, but that is not enough.
    let held = next().await;
    assert!(!held.healthy && held.why.contains("held down for 60s"), "{held:?}");
    publisher.update(|snapshot| snapshot.members = vec![announced("a", false), announced("b", false)]);
    assert!(next().await.healthy, "better than none");
    drop(publisher);
    timeout(LIMIT, task).await.unwrap().unwrap().unwrap();
}
