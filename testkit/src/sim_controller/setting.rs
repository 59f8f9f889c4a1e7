//! What a history is about, drawn from its seed.

use soloist::controller::critical::Mark;
use soloist::controller::group::{Group, Handover, Order, PromoteAfter, Selector};
use soloist::controller::notice::Notice;
use soloist::route::pod_label::Label;

use crate::sim::random::Random;

/// Settings that differ in what is promised: each has an equal share of all seeds.
const KINDS: u64 = 8;

/// How one history goes.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// The group at the start.
    pub group: Group,
    /// Pods that its owner keeps.
    pub replicas: usize,
    /// Whether a new pod has the name of an old one.
    pub is_stateful: bool,
    /// Whether the owner labels its pods as standbys.
    pub is_labelled_first: bool,
    /// Whether a write quotes the version of when it is sent, not of when it was planned.
    pub quotes_late: bool,
    /// Whether the number of active pods is changed on the way.
    pub is_resized: bool,
    /// In a thousand steps.
    pub faults: u64,
    /// Requests that are lost, of a thousand.
    pub losses: u64,
    /// How often a watch delivers, of a thousand turns of a controller.
    pub watches: u64,
}

impl Setting {
    pub(super) fn of(seed: u64, random: &mut Random) -> Self {
        let kind = seed % KINDS;
        let active = if kind & 1 == 0 { 1 } else { 2 };
        let promote_after = if kind & 2 == 0 { PromoteAfter::Removed } else { PromoteAfter::Stopped };
        let handover = if kind & 4 == 0 { Handover::DrainFirst } else { Handover::StopFirst };
        let word = str::to_owned;
        Self {
            group: Group {
                namespace: word("prod"),
                name: word("app"),
                selector: Selector::one("app", "app"),
                active,
                label: Label { key: word("role"), active: word("active"), standby: word("standby") },
                promote_after,
                handover,
                critical: Vec::new(),
                mark: Mark::default(),
                delete_grace_s: None,
                notice: random.chance(500).then_some(Notice::Udp { port: 1, payload: None }),
                order: Order::Priority,
                is_paused: false,
                switchover: None,
            },
            replicas: active + 1 + random.index(3),
            is_stateful: random.chance(300),
            is_labelled_first: random.chance(500),
            quotes_late: random.chance(500),
            is_resized: random.chance(250),
            faults: random.pick(&[10, 30, 60]),
            losses: random.pick(&[0, 50, 200]),
            watches: random.pick(&[100, 400, 700]),
        }
    }
}
