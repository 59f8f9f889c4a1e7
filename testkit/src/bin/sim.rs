//! `sim`: runs simulated histories, prints what came of them, shrinks what failed.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use testkit::sim::{Campaign, Kind, Scenario, report_json, report_table, run, run_campaign, shrink};

const USAGE: &str = "usage: sim [--histories N] [--seed S] [--fault KIND[,KIND...]] [--json FILE] [--jobs N]
       sim --case JSON        replays one case and prints all that happened
       sim --faults           lists the kinds of faults";

struct Arguments {
    campaign: Campaign,
    json: Option<PathBuf>,
    case: Option<String>,
    list: bool,
}

fn parse() -> Result<Arguments> {
    let campaign = Campaign { histories: 10_000, seed: 1, only: Vec::new(), jobs: 2 };
    let mut parsed = Arguments { campaign, json: None, case: None, list: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value\n{USAGE}"));
        match word.as_str() {
            "--histories" => parsed.campaign.histories = value()?.replace('_', "").parse()?,
            "--seed" => parsed.campaign.seed = value()?.parse()?,
            "--jobs" => parsed.campaign.jobs = value()?.parse()?,
            "--json" => parsed.json = Some(value()?.into()),
            "--case" => parsed.case = Some(value()?),
            "--faults" => parsed.list = true,
            "--fault" => {
                for name in value()?.split(',') {
                    let kind = Kind::parse(name).with_context(|| format!("no fault is called {name}"))?;
                    parsed.campaign.only.push(kind);
                }
            }
            _ => bail!("unknown argument {word}\n{USAGE}"),
        }
    }
    Ok(parsed)
}

fn main() -> Result<ExitCode> {
    let arguments = parse()?;
    if arguments.list {
        Kind::ALL.iter().for_each(|kind| println!("{kind}"));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(case) = &arguments.case {
        return replay(case);
    }
    let campaign = &arguments.campaign;
    let begun = std::time::Instant::now();
    let total = run_campaign(campaign);
    print!("{}", report_table(campaign, &total));
    println!("\n{:.1} s with {} threads", begun.elapsed().as_secs_f64(), campaign.jobs);
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report_json(campaign, &total))?;
        std::fs::write(path, text + "\n").with_context(|| format!("failed to write {}", path.display()))?;
    }
    for (scenario, findings) in &total.failures {
        println!("\nseed {} failed:", scenario.seed);
        findings.iter().for_each(|finding| println!("  {finding}"));
        println!("  as small as it gets, a line for testkit/regressions/sim.txt:");
        println!("{}", serde_json::to_string(&shrink(scenario))?);
    }
    let sound = total.failed == 0;
    let valid = total.never_fired(campaign).is_empty();
    Ok(if sound && valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replay(case: &str) -> Result<ExitCode> {
    let scenario: Scenario = match case.parse() {
        Ok(seed) => Scenario::of(seed, &[]),
        Err(_) => serde_json::from_str(case).context("failed to read the case")?,
    };
    println!("{}", serde_json::to_string(&scenario)?);
    let history = run(&scenario, true);
    history.trace.iter().flatten().for_each(|line| println!("{line}"));
    println!("hash {:016x}, starts {}, failovers {}", history.hash, history.starts, history.failovers);
    history.findings.iter().for_each(|finding| println!("FINDING {finding}"));
    Ok(if history.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
