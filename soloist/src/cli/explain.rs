//! `soloist explain`: what follows from a lease, as a drawing and as a table. Asks nobody and needs no lock.

mod cases;
mod drawing;

use std::time::Duration;

use clap::Args;
use election::{EPSILON, RHO, Timing};
use serde::Serialize;

use self::cases::{Case, Range, Terms};
use super::membership::{self, StopGrace};
use super::operate::print::{Format, SCHEMA, exactly, span, table, width};
use crate::error::Failure;
use crate::settings::{self, Store};
use crate::spell;
use crate::workload::size::memory_limit_bytes;

#[derive(Debug, Args)]
#[command(after_help = "\
The durations of a member follow from its lease; what does not fit is refused
in the words of soloist run, with 78. The drawing counts from the moment at
which a renewal was sent that was confirmed later. The table counts from the
event to the next command's first instruction: best and typical on an idle
store and host, as measured for docs/measurements.md, worst while the store
answers each request within its limit and assumptions A1 to A6 hold.

Examples:
  soloist explain --lease 15s
  soloist explain --lease 4s --lock kubernetes --stop-grace 30s
  soloist explain --lease 2s --memory 8Gi --output json")]
pub(super) struct Arguments {
    #[command(flatten)]
    lease: membership::Lease,
    #[command(flatten)]
    stop: StopGrace,
    /// The lock that it is about, or only its kind: file, kubernetes or consul [default: file]
    #[arg(long, env = "SOLOIST_LOCK", value_name = "URL")]
    lock: Option<String>,
    /// The memory limit of the workload, such as 512Mi or 8Gi [default: the one in force here, else 2Gi]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// A drawing and a table for people, or JSON for programs
    #[arg(long, short, env = "SOLOIST_OUTPUT", default_value = "table", value_name = "FORMAT")]
    output: Format,
    // Last, because a heading holds for all that follows it.
    #[command(flatten)]
    health: membership::health::Arguments,
}

/// Computes and prints; 78 for a lease that does not hold.
pub(super) fn main(arguments: Arguments) -> Result<i32, Failure> {
    let memory = arguments.memory.as_deref().map(|size| settings::bytes("--memory", size)).transpose()?;
    let store = settings::store(arguments.lock.as_deref())?;
    let terms = Terms {
        store,
        timing: settings::timing_on(store, &arguments.lease.lease, memory.or_else(memory_limit_bytes))?,
        stop_grace: settings::duration("--stop-grace", &arguments.stop.stop_grace)?,
        health: settings::health::rules(&arguments.health.raw())?,
    };
    let cases = terms.cases();
    let shown = Explanation::of(&terms, &cases);
    arguments.output.print(&shown, || text(&terms, &cases, width().unwrap_or(80)));
    Ok(0)
}

/// What follows, under the names that programs rely on.
#[derive(Debug, Serialize)]
struct Explanation {
    schema: u32,
    store: Store,
    timing: Durations,
    events: Vec<Event>,
}

/// The inequality, term by term.
#[derive(Debug, Serialize)]
struct Durations {
    lease_ms: f64,
    kill_after_ms: f64,
    grace_ms: f64,
    lateness_ms: f64,
    proof_ms: f64,
    epsilon_ms: f64,
    rho: f64,
    gone_by_ms: f64,
    earliest_start_ms: f64,
    slack_ms: f64,
    period_ms: f64,
    backoff_ms: f64,
    attempt_limit_ms: f64,
    courtesy_ms: f64,
    stop_grace_ms: f64,
    outage_endured_ms: f64,
}

#[derive(Debug, Serialize)]
struct Event {
    event: &'static str,
    what: &'static str,
    #[serde(flatten)]
    total: Bounds,
    phases: Vec<Phase>,
}

#[derive(Debug, Serialize)]
struct Phase {
    phase: &'static str,
    #[serde(flatten)]
    length: Bounds,
}

#[derive(Debug, Serialize)]
struct Bounds {
    best_ms: f64,
    typical_ms: f64,
    worst_ms: f64,
}

impl From<Range> for Bounds {
    fn from(range: Range) -> Self {
        let [best_ms, typical_ms, worst_ms] = [range.best, range.typical, range.worst].map(spell::ms_of);
        Self { best_ms, typical_ms, worst_ms }
    }
}

impl Explanation {
    fn of(terms: &Terms, cases: &[Case]) -> Self {
        let event = |case: &Case| Event {
            event: case.name,
            what: case.what,
            total: case.total().into(),
            phases: case.phases.iter().map(|phase| Phase { phase: phase.what, length: phase.length.into() }).collect(),
        };
        Self {
            schema: SCHEMA,
            store: terms.store,
            timing: Durations::of(&terms.timing, terms),
            events: cases.iter().map(event).collect(),
        }
    }
}

impl Durations {
    fn of(timing: &Timing, terms: &Terms) -> Self {
        Self {
            lease_ms: spell::ms_of(timing.lease()),
            kill_after_ms: spell::ms_of(timing.kill_after()),
            grace_ms: spell::ms_of(timing.grace()),
            lateness_ms: spell::ms_of(timing.lateness()),
            proof_ms: spell::ms_of(timing.proof()),
            epsilon_ms: spell::ms_of(EPSILON),
            rho: RHO,
            gone_by_ms: spell::ms_of(timing.gone_by()),
            earliest_start_ms: spell::ms_of(timing.earliest_start()),
            slack_ms: spell::ms_of(timing.slack().unwrap_or_default()),
            period_ms: spell::ms_of(timing.period()),
            backoff_ms: spell::ms_of(timing.backoff()),
            attempt_limit_ms: spell::ms_of(timing.attempt_limit()),
            courtesy_ms: spell::ms_of(timing.courtesy()),
            stop_grace_ms: spell::ms_of(terms.stop_grace),
            outage_endured_ms: spell::ms_of(timing.outage_endured()),
        }
    }
}

fn text(terms: &Terms, cases: &[Case], width: usize) -> String {
    let timing = &terms.timing;
    let lease = exactly(timing.lease());
    let headline = format!("lease {lease} on {}, stop-grace {}", terms.store, exactly(terms.stop_grace));
    let renewal = format!(
        "renewed each {}; an attempt is given up after {}, and the next one begins {} later",
        exactly(timing.period()),
        exactly(timing.attempt_limit()),
        exactly(timing.backoff()),
    );
    let outage = format!(
        "an outage of the store stops nobody if it is shorter than {}, wherever it falls",
        exactly(timing.outage_endured())
    );
    let drawing = drawing::draw(timing, width);
    format!("{headline}\n\n{drawing}\n\n{renewal}\n{outage}\n\n{}", cases_table(cases))
}

const SECOND: Duration = Duration::from_secs(1);

fn cases_table(cases: &[Case]) -> String {
    let length = |length: Duration| if length < SECOND { span(length) } else { exactly(length) };
    let row = |what: String, range: Range| [what, length(range.best), length(range.typical), length(range.worst)];
    let rows = cases.iter().flat_map(|case| {
        let phases = case.phases.iter().map(move |phase| row(format!("  {}", phase.what), phase.length));
        std::iter::once(row(case.what.to_owned(), case.total())).chain(phases)
    });
    table(["from the event to the next command", "best", "typical", "worst"], rows)
}

#[cfg(test)]
mod tests;
