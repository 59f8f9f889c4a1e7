//! `soloist doctor`: whether a group can keep its promise here, finding by finding, each with its fix. Changes nothing
//! that stays.

mod host;
mod kubernetes;
mod store;

use std::time::Duration;

use clap::Args;
use election::Timing;
use serde::Serialize;

use super::membership::StopGrace;
use super::operate::print::{Colour, SCHEMA, coloured, exactly, table};
use super::operate::{self, Target};
use crate::error::{Code, Failure};
use crate::settings::{self, Place};
use crate::workload::size::memory_limit_bytes;

#[derive(Debug, Args)]
#[command(after_help = "\
Each finding is ok, a warning, or a problem, with what was found and the fix.
Leaves with 0 where there is no problem, else with 1. It asks as whoever runs
it, and measures the host that it runs on: for the members of a pod run it
there, with kubectl exec. Nothing that it changes stays.

Examples:
  soloist doctor --lock ./app.lock --lease 5s
  soloist doctor --lock kubernetes://prod/app --stop-grace 25s
  soloist doctor --lock consul://127.0.0.1:8500/app --output json")]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) place: operate::Common,
    /// The lease of the members [default: that of the record, else 15s]
    #[arg(long, env = "SOLOIST_LEASE", allow_hyphen_values = true, value_name = "DURATION")]
    lease: Option<String>,
    #[command(flatten)]
    stop: StopGrace,
    /// How often the store is asked to measure how long it takes; 1 to 1000
    #[arg(long, default_value_t = 20, value_name = "N")]
    probes: u32,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    found: String,
    fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), fix: None }
    }

    fn warning(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, found: found.into(), fix: Some(fix.into()) }
    }

    fn problem(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Problem, found: found.into(), fix: Some(fix.into()) }
    }

    /// What stands in the way.
    fn failed(check: &'static str, failure: Failure) -> Self {
        Self { check, level: Level::Problem, found: failure.message, fix: failure.hint }
    }
}

/// What the members are told, as far as it is known.
struct Terms {
    timing: Timing,
    stop_grace: Duration,
    probes: u32,
}

/// Everything that was found, under the names that programs rely on.
#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    group: String,
    lock: String,
    findings: Vec<Finding>,
}

/// Looks at everything; 1 where there is a problem.
pub(super) fn main(arguments: &Arguments) -> Result<i32, Failure> {
    if !(1..=1_000).contains(&arguments.probes) {
        let what = format!("--probes {} is out of range", arguments.probes);
        return Err(Failure::new(Code::Usage, what).hint("from 1 to 1000"));
    }
    let target = arguments.place.target_that_may_come()?;
    let stop_grace = settings::duration("--stop-grace", &arguments.stop.stop_grace)?;
    if let Some(lease) = &arguments.lease {
        settings::duration("--lease", lease)?;
    }
    let findings = operate::block_on(async { Ok(examine(&target, arguments, stop_grace).await) })?;
    let report = Report { schema: SCHEMA, group: target.group.clone(), lock: target.lock.to_string(), findings };
    arguments.place.output.print(&report, || report.text());
    Ok(if report.count(Level::Problem) > 0 { Code::No as i32 } else { 0 })
}

async fn examine(target: &Target, arguments: &Arguments, stop_grace: Duration) -> Vec<Finding> {
    let mut findings = Vec::new();
    let look = store::first_look(target, &mut findings).await;
    let recorded = look.as_ref().and_then(store::lease_of_the_holder).map(|lease| election::Plain(lease).to_string());
    let lease = arguments.lease.clone().or(recorded);
    let lease = lease.unwrap_or_else(|| "15s".to_owned());
    let timing = match settings::timing_on(target.lock.store(), &lease, memory_limit_bytes()) {
        Ok(timing) => timing,
        Err(failure) => {
            findings.push(Finding::failed("timing", failure));
            return findings;
        }
    };
    let slack = timing.slack().unwrap_or_default();
    findings.push(Finding::ok("timing", format!("lease {}, {} to spare", exactly(timing.lease()), exactly(slack))));
    let terms = Terms { timing, stop_grace, probes: arguments.probes };
    if let Some(look) = &look {
        findings.extend(store::of_the_group(look, &terms));
        findings.extend(store::latency(target, &terms).await);
    }
    findings.extend(store::permissions(target).await);
    findings.extend(store::clock(target).await);
    let is_here = match &target.lock {
        Place::Kubernetes(_) => {
            findings.extend(kubernetes::examine(target, look.as_ref(), &terms).await);
            host::is_in_a_pod()
        }
        Place::File(_) | Place::Consul(_) => true,
    };
    if is_here {
        findings.extend(host::examine(&terms).await);
    } else {
        let fix =
            "kubectl exec POD -- soloist doctor --lock ... looks at containment, CPU and the guard's lateness there";
        findings.push(Finding::warning("host", "this host is not looked at: the members are in pods", fix));
    }
    findings
}

impl Report {
    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    fn text(&self) -> String {
        let (problems, warnings) = (self.count(Level::Problem), self.count(Level::Warning));
        let colour = if problems > 0 { Colour::Bad } else { Colour::Good };
        let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let headline = format!("{}, {}", counted(problems, "problem"), counted(warnings, "warning"));
        let headline = coloured(&headline, colour);
        let rows = self.findings.iter().map(|finding| {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Problem => "PROBLEM",
            };
            let fix = finding.fix.clone().unwrap_or_default();
            [finding.check.to_owned(), level.to_owned(), finding.found.clone(), fix]
        });
        format!("{headline}\n\n{}", table(["check", "is", "found", "fix"], rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_and_shows_each_finding_with_its_fix() {
        let findings = vec![
            Finding::ok("timing", "lease 15s"),
            Finding::warning("members", "only a is there", "start another one"),
            Finding::problem("permissions", "verb update is missing", "add it to the Role"),
        ];
        let report = Report { schema: 1, group: "app".to_owned(), lock: "/srv/app.lock".to_owned(), findings };
        let text = report.text();
        assert!(text.starts_with("1 problem, 1 warning\n"), "{text}");
        assert!(text.contains("PROBLEM") && text.contains("add it to the Role"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["findings"][1]["level"], &json["findings"][0]["fix"]),
            (&"warning".into(), &serde_json::Value::Null)
        );
    }
}
