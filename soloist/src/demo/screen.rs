//! How the demo looks: a live picture on a terminal, plain lines elsewhere, silence for JSON.

use std::io::{IsTerminal, Write};

use super::Plan;
use super::client::Client;
use super::ends::End;
use super::members;
use super::report::{Report, Round};
use super::watch::{Active, Watch};

/// What the output is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A person.
    People,
    /// A program: nothing before the report.
    Json,
}

/// Rounds that stay in sight on a terminal.
const ROUNDS_SHOWN: usize = 12;

pub(super) struct Screen {
    style: Style,
    plan: Plan,
    live: bool,
    /// Lines of the last picture, which the next one overwrites.
    lines: usize,
}

impl Screen {
    pub fn new(style: Style, plan: Plan) -> Self {
        let live = style == Style::People && std::io::stdout().is_terminal();
        Self { style, plan, live, lines: 0 }
    }

    /// The state of the group before a round.
    pub fn show(&mut self, watch: &Watch, active: &Active, report: &Report, client: &Client) {
        if !self.live {
            return;
        }
        let mut picture = vec![format!(
            "soloist demo: {} rounds, lease {:?}, three members with one lock file",
            self.plan.rounds, self.plan.lease
        )];
        picture.push(String::new());
        let said = watch.said();
        for name in members::NAMES {
            picture.push(if name == active.member {
                format!("  \x1b[1;32m{name}  active   token {}\x1b[0m", active.token)
            } else {
                format!("  \x1b[2m{name}  {}\x1b[0m", said.get(name).map_or("does not answer", |said| &said.role))
            });
        }
        picture.push(String::new());
        let from = report.rounds.len().saturating_sub(ROUNDS_SHOWN);
        picture.extend(report.rounds[from..].iter().map(line));
        picture.push(format!(
            "  {} handovers so far, {} entries in the journal",
            report.rounds.len(),
            client.acknowledged()
        ));
        self.draw(&picture);
    }

    fn draw(&mut self, picture: &[String]) {
        let mut out = std::io::stdout().lock();
        if self.lines > 0 {
            let _ = write!(out, "\x1b[{}A\x1b[J", self.lines);
        }
        for line in picture {
            let _ = writeln!(out, "{line}");
        }
        let _ = out.flush();
        self.lines = picture.len();
    }

    /// What is about to happen.
    pub fn announce(&mut self, number: u32, end: End, active: &Active) {
        if self.live {
            let text = format!("  round {}: {end}, {} is active ...", number + 1, active.member);
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{text}");
            self.lines += 1;
        }
    }

    /// The last round.
    pub fn handed_over(&self, report: &Report) {
        if self.style == Style::People
            && !self.live
            && let Some(round) = report.rounds.last()
        {
            let _ = writeln!(std::io::stdout(), "{}", line(round));
        }
    }

    /// The report.
    pub fn finish(&mut self, report: &Report) {
        let mut out = std::io::stdout().lock();
        match self.style {
            Style::People => {
                if self.live && self.lines > 0 {
                    let _ = write!(out, "\x1b[{}A\x1b[J", self.lines);
                }
                let _ = writeln!(out, "{}", report.table());
                let _ = writeln!(
                    out,
                    "gap: from the proof that nothing of the old workload is left until the new one runs"
                );
                let _ = writeln!(out, "{}", report.verdict());
            }
            Style::Json => {
                let text = serde_json::to_string_pretty(report).unwrap_or_default();
                let _ = writeln!(out, "{text}");
            }
        }
    }
}

fn line(round: &Round) -> String {
    let gap = round.gap_ms.map_or_else(|| "unknown".to_owned(), |gap| format!("{gap:.1} ms"));
    format!(
        "  {:>3}  {:<24} {} -> {}  token {:<4} gap {gap:>10}, {:>8.1} ms after the event",
        round.round, round.end, round.from, round.to, round.token, round.since_event_ms
    )
}
