//! How the demo looks: a live picture on a terminal, plain lines elsewhere, silence for JSON.

use std::io::{IsTerminal, Write};

use super::Plan;
use super::client::Client;
use super::ends::End;
use super::life::Life;
use super::members::Members;
use super::report::{Report, Round};

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
    pub fn show(&mut self, members: &Members, active: &Life, report: &Report, client: &Client) {
        if !self.live {
            return;
        }
        let mut picture = vec![format!(
            "soloist demo: {} rounds, lease {:?}, three members with one lock file",
            self.plan.rounds, self.plan.lease
        )];
        picture.push(String::new());
        for name in members.names() {
            picture.push(if name == active.member {
                format!("  \x1b[1;32m{name}  active   token {}\x1b[0m", active.token)
            } else {
                format!("  \x1b[2m{name}  standby\x1b[0m")
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
    pub fn announce(&mut self, number: u32, end: End, active: &Life) {
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
                let _ = writeln!(out, "gap: from the last instant of the old workload to the first of the new one");
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
    format!(
        "  {:>3}  {:<24} {} -> {}  token {:<4} gap {:>8.1} ms, {:>8.1} ms after the event",
        round.round, round.end, round.from, round.to, round.token, round.gap_ms, round.since_event_ms
    )
}
