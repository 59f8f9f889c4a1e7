//! `soloist status --watch`: what the lock says, each time that it says something else. The lock's own notices tell when
//! to look; only what grows older by itself is computed anew each second.

mod screen;

use std::io::{self, Write};
use std::time::Duration;

use futures_util::future::select_all;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::screen::Screen;
use super::Status;
use crate::cli::operate::print::{Format, short_time};
use crate::cli::operate::{AnyBoard, Target, asking};
use crate::clock::unix_us;
use crate::error::{Code, Failure};
use crate::lock::board::{Board, Look};
use crate::snapshot::Announcement;

/// Ages are shown in seconds.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks: of many changes at once, the last one counts.
const PACE: Duration = Duration::from_millis(50);
/// Between two looks while nothing is told: the right to watch may be missing, or the store be away.
const UNTOLD: Duration = Duration::from_secs(2);

/// Shows it until somebody has seen enough.
pub(super) async fn watch(target: &Target, format: Format) -> Result<i32, Failure> {
    // Before anything else: the answer to a lock that is not there is the same as without --watch.
    let board = target.board().await?;
    asking::look(&board).await?;
    let mut observer = Observer { target: target.clone(), boards: vec![board] };
    let first = Sight { looks: observer.look().await?, trouble: None };
    let (tell, mut sights) = watch::channel(first);
    tokio::spawn(observer.observe(tell));
    let internal = |error: io::Error| Failure::new(Code::Internal, format!("failed to watch: {error}"));
    let mut enough = Enough::new().map_err(internal)?;
    let mut show = Show::new(format).map_err(internal)?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !show.is_over() {
        if show.show(target, &sights.borrow_and_update()).is_err() {
            // Nobody reads any more.
            break;
        }
        tokio::select! {
            told = sights.changed() => if told.is_err() { break },
            _ = tick.tick() => {}
            () = show.woken() => {}
            () = enough.signalled() => break,
        }
    }
    Ok(0)
}

/// Signals that end it in order, so that the terminal is left as it was.
struct Enough([Signal; 3]);

impl Enough {
    fn new() -> io::Result<Self> {
        let of = |kind| signal(kind);
        Ok(Self([of(SignalKind::interrupt())?, of(SignalKind::terminate())?, of(SignalKind::hangup())?]))
    }

    async fn signalled(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// What was seen last.
struct Sight {
    /// One for each slot.
    looks: Vec<Look>,
    /// Why nothing newer was seen, if a look failed.
    trouble: Option<String>,
}

/// Looks whenever there is something new.
struct Observer {
    target: Target,
    /// One for each slot.
    boards: Vec<AnyBoard>,
}

impl Observer {
    async fn observe(mut self, tell: watch::Sender<Sight>) {
        let mut is_blind = false;
        loop {
            if !is_blind {
                self.changed().await;
            }
            let seen = self.look().await;
            is_blind = seen.is_err();
            tell.send_modify(|sight| match seen {
                Ok(looks) => *sight = Sight { looks, trouble: None },
                Err(failure) => sight.trouble = Some(failure.message),
            });
            sleep(if is_blind { UNTOLD } else { PACE }).await;
        }
    }

    /// Returns when any of the boards has changed, or does not tell.
    async fn changed(&self) {
        loop {
            let told = self.boards.iter().map(|board| Box::pin(board.changed()));
            tokio::select! {
                (told, ..) = select_all(told) => match told {
                    Ok(_) => return,
                    Err(_) => return sleep(UNTOLD).await,
                },
                () = sleep(UNTOLD) => {}
            }
            // A watch may break at any time.
            if !self.boards.iter().all(AnyBoard::is_told) {
                return;
            }
        }
    }

    /// At all slots, of which there may be more or fewer now.
    async fn look(&mut self) -> Result<Vec<Look>, Failure> {
        let mut looks = vec![asking::bounded("read the lock", self.boards[0].look_at_news()).await?];
        let slots = looks[0].slots();
        self.boards.truncate(usize::try_from(slots).unwrap_or(1).max(1));
        for slot in 2..=slots {
            if self.boards.len() == looks.len() {
                self.boards.push(self.target.board_at(&self.target.lock.of_slot(slot)).await?);
            }
            let look = self.boards[looks.len()].look_at_news();
            looks.push(asking::bounded("read the lock", look).await?);
        }
        Ok(looks)
    }
}

impl Sight {
    fn status(&self, target: &Target, now: u64) -> Status {
        let mut looks = self.looks.clone();
        for look in &mut looks {
            look.members.retain(Announcement::is_fresh);
        }
        Status::of(target, &looks, now)
    }
}

/// Where it goes.
enum Show {
    /// Drawn over and over on a terminal.
    Screen(Screen),
    /// A line for each change.
    Lines { format: Format, last: Option<Value>, trouble: Option<String> },
}

impl Show {
    fn new(format: Format) -> io::Result<Self> {
        use std::io::IsTerminal as _;
        match format {
            Format::Table if io::stdout().is_terminal() => Screen::open().map(Self::Screen),
            format => Ok(Self::Lines { format, last: None, trouble: None }),
        }
    }

    fn show(&mut self, target: &Target, sight: &Sight) -> io::Result<()> {
        let now = unix_us();
        let status = sight.status(target, now);
        match self {
            Self::Screen(screen) => {
                let trouble = sight.trouble.as_ref().map(|why| format!("\n\nnothing newer is known: {why}"));
                screen.draw(&(status.text(now) + &trouble.unwrap_or_default()))
            }
            Self::Lines { format, last, trouble } => {
                if *trouble != sight.trouble {
                    trouble.clone_from(&sight.trouble);
                    if let Some(why) = trouble {
                        let _ = writeln!(io::stderr().lock(), "soloist: nothing newer is known: {why}");
                    }
                }
                let news = status.lasting();
                if last.as_ref() == Some(&news) {
                    return Ok(());
                }
                let line = match format {
                    Format::Json => serde_json::to_string(&status).unwrap_or_default(),
                    Format::Table => format!("{}  {}", short_time(now), status.line()),
                };
                *last = Some(news);
                let mut out = io::stdout().lock();
                writeln!(out, "{line}")?;
                out.flush()
            }
        }
    }

    /// Returns when it is to be drawn anew, or no more.
    async fn woken(&mut self) {
        match self {
            Self::Screen(screen) => screen.woken().await,
            Self::Lines { .. } => std::future::pending().await,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self, Self::Screen(screen) if screen.is_over())
    }
}

/// What grows older by itself, or changes with each renewal.
const VOLATILE: [&str; 4] = ["written", "written_age_ms", "announced", "announced_age_ms"];

impl Status {
    /// All that is news when it changes.
    fn lasting(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        forget_volatile(&mut value);
        value
    }

    /// On one line.
    fn line(&self) -> String {
        let member = |member: &super::Member| {
            format!("{} {}{}", member.name, member.role, if member.healthy { "" } else { " unhealthy" })
        };
        let members: Vec<String> = self.members.iter().map(member).collect();
        let pause = self.paused_until.as_ref().map_or(String::new(), |until| format!("; paused until {until}"));
        format!("{}: {}{pause}; {}", self.plain_headline(), self.reason, members.join(", "))
    }
}

fn forget_volatile(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            fields.values_mut().for_each(forget_volatile);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_volatile),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::operate::fake::{held, target_at, with_members};

    const NOW: u64 = 1_700_000_000_000_000;

    fn status(look: Look, now: u64) -> Status {
        Status::of(&target_at("/srv/app.lock"), &[Look { written_unix_us: Some(now - 7), ..look }], now)
    }

    #[test]
    fn renewals_and_age_are_no_news_and_health_is() {
        let members = |healthy| with_members(held("a", 1), NOW / 1_000, &[("a", true), ("b", healthy)]);
        let before = status(members(true), NOW).lasting();
        assert_eq!(before, status(members(true), NOW + 1_000_000).lasting());
        assert_ne!(before, status(members(false), NOW).lasting());
        assert_ne!(before, status(held("a", 1), NOW).lasting());
        assert_ne!(before, status(held("b", 2), NOW).lasting());
    }

    #[test]
    fn a_line_says_who_is_active_and_who_else_is_there() {
        let look = with_members(held("a", 42), NOW / 1_000, &[("a", true), ("b", false)]);
        let line = status(look, NOW).line();
        assert!(line.starts_with("a is active with token 42: "), "{line}");
        assert!(line.ends_with("; a active, b standby unhealthy") && !line.contains('\n'), "{line}");
    }
}
