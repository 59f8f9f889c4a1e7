//! The result of a campaign, as a table for people and as JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::campaign::{Campaign, Total};
use super::fault::{Broken, Kind};

/// p50, p99 and the largest, in milliseconds, of sorted microseconds.
fn quantiles(sorted: &[u32]) -> Option<[f64; 3]> {
    let at =
        |permille: usize| sorted.get((sorted.len() - 1) * permille / 1000).map(|micros| f64::from(*micros) / 1000.0);
    if sorted.is_empty() {
        return None;
    }
    Some([at(500)?, at(990)?, at(1000)?])
}

/// The table.
pub fn table(campaign: &Campaign, total: &Total) -> String {
    let mut text = String::new();
    let mut line = |content: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{content}");
    };
    line(format!("seed {}, histories {}, hash {:016x}", campaign.seed, total.histories, total.hash));
    line(format!("virtual time {} h, inputs {}", total.virtual_ms / 3_600_000, total.steps));
    let Total { full, moves, .. } = total;
    line(format!(
        "slots {}, histories with all of them taken at once {full}, moves to another slot {moves}",
        campaign.slots
    ));
    line(format!("starts {}, failovers {}", total.starts, total.failovers));
    line(format!("overlaps {}, false failovers {}", total.overlaps, total.false_failovers));
    line(format!("histories with a finding {}", total.failed));
    for (what, count) in &total.findings {
        line(format!("  {count:>7}  {what}"));
    }
    line(String::new());
    line(format!("{:<20} {:>9} {:>9} {:>10} {:>10} {:>10}", "fault", "fired", "gaps", "p50 ms", "p99 ms", "max ms"));
    for kind in Kind::ALL {
        let gaps = &total.gaps[kind.index()];
        let fired = total.fired[kind.index()];
        match quantiles(gaps) {
            Some([p50, p99, max]) => {
                line(format!("{:<20} {fired:>9} {:>9} {p50:>10.1} {p99:>10.1} {max:>10.1}", kind.word(), gaps.len()))
            }
            None => line(format!("{:<20} {fired:>9} {:>9}", kind.word(), 0)),
        }
    }
    line(String::new());
    line("overlaps after an assumption was broken, counted apart:".to_owned());
    for broken in Broken::ALL {
        let (count, longest) = total.excused[broken as usize];
        line(format!("{:<20} {count:>9}   at most {longest} ms each", broken.word()));
    }
    let silent = total.never_fired(campaign);
    if !silent.is_empty() {
        let words: Vec<_> = silent.iter().map(|kind| kind.word()).collect();
        line(format!("\nINVALID: never fired: {}", words.join(", ")));
    }
    text
}

/// The same as JSON.
pub fn to_json(campaign: &Campaign, total: &Total) -> Value {
    let faults = Kind::ALL.iter().map(|kind| {
        let gaps = &total.gaps[kind.index()];
        let [p50, p99, max] = quantiles(gaps).map_or([None; 3], |values| values.map(Some));
        let gap = json!({ "n": gaps.len(), "p50_ms": p50, "p99_ms": p99, "max_ms": max });
        json!({ "fault": kind.word(), "fired": total.fired[kind.index()], "gap": gap })
    });
    let excused = Broken::ALL.iter().map(|broken| {
        let (count, longest) = total.excused[*broken as usize];
        json!({ "assumption": broken.word(), "overlaps": count, "longest_ms": longest })
    });
    let silent: Vec<_> = total.never_fired(campaign).iter().map(|kind| kind.word()).collect();
    json!({
        "seed": campaign.seed,
        "histories": total.histories,
        "hash": format!("{:016x}", total.hash),
        "virtual_hours": total.virtual_ms / 3_600_000,
        "inputs": total.steps,
        "slots": campaign.slots,
        "histories_with_all_slots_taken": total.full,
        "moves_to_another_slot": total.moves,
        "starts": total.starts,
        "failovers": total.failovers,
        "overlaps": total.overlaps,
        "false_failovers": total.false_failovers,
        "histories_with_a_finding": total.failed,
        "findings": total.findings,
        "valid": silent.is_empty(),
        "never_fired": silent,
        "faults": faults.collect::<Vec<_>>(),
        "assumptions_broken": excused.collect::<Vec<_>>(),
    })
}
