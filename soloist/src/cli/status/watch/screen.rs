//! A terminal that is drawn over and over, and left as it was. `q` ends it.

use std::io::{self, IsTerminal, Write};
use std::thread;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::operate::print::{height, width};

/// The other screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the first line; then what was drawn before is overwritten line by line.
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";

/// The terminal, until this is dropped.
pub(super) struct Screen {
    /// What the keyboard was like.
    keyboard: Option<Termios>,
    keys: mpsc::Receiver<()>,
    resized: Signal,
    suspended: Signal,
    is_over: bool,
}

impl Screen {
    pub fn open() -> io::Result<Self> {
        let (seen_enough, keys) = mpsc::channel(1);
        let mut screen = Self {
            keyboard: None,
            keys,
            resized: signal(SignalKind::window_change())?,
            suspended: signal(SignalKind::from_raw(nix::libc::SIGTSTP))?,
            is_over: false,
        };
        screen.enter()?;
        if screen.keyboard.is_some() {
            // Reading waits, and a terminal that is made not to wait is so for all who share it.
            thread::Builder::new().name("keys".into()).spawn(move || wait_for_q(&seen_enough))?;
        }
        Ok(screen)
    }

    fn enter(&mut self) -> io::Result<()> {
        if io::stdin().is_terminal() {
            let before = tcgetattr(io::stdin())?;
            let mut keys = before.clone();
            keys.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            tcsetattr(io::stdin(), OptionalActions::Now, &keys)?;
            self.keyboard = Some(before);
        }
        put(ENTER)
    }

    fn leave(&mut self) {
        // Whoever hung up has no terminal to be restored.
        let _ = put(LEAVE);
        if let Some(before) = self.keyboard.take() {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
        }
    }

    pub fn draw(&self, text: &str) -> io::Result<()> {
        let lines = fitted(text, width().unwrap_or(80), height().unwrap_or(24));
        let mut drawn = String::from(HOME);
        for (number, line) in lines.iter().enumerate() {
            let end = if number == 0 { "" } else { "\r\n" };
            drawn.push_str(&format!("{end}{line}{REST_OF_LINE}"));
        }
        drawn.push_str(REST_OF_SCREEN);
        put(&drawn)
    }

    /// Returns when it is to be drawn anew, or no more.
    pub async fn woken(&mut self) {
        tokio::select! {
            key = self.keys.recv(), if self.keyboard.is_some() => self.is_over = key.is_some(),
            _ = self.resized.recv() => {}
            _ = self.suspended.recv() => {
                self.leave();
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
                // Goes on here once it is in the foreground again.
                let _ = self.enter();
            }
        }
    }

    pub fn is_over(&self) -> bool {
        self.is_over
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn wait_for_q(seen_enough: &mpsc::Sender<()>) {
    let mut key = [0];
    while let Ok(1) = rustix::io::read(io::stdin(), &mut key) {
        if matches!(key[0], b'q' | b'Q') {
            let _ = seen_enough.try_send(());
        }
    }
}

/// What there is room for: long lines go on in the next one, and what is too much is counted.
fn fitted(text: &str, width: usize, height: usize) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().flat_map(|line| broken(line, width.max(1))).collect();
    let room = height.max(1);
    if lines.len() > room {
        let more = lines.len() - (room - 1);
        lines.truncate(room - 1);
        let note: String = format!("... {more} more lines").chars().take(width).collect();
        lines.push(note);
    }
    lines
}

fn broken(line: &str, width: usize) -> Vec<String> {
    let plain = without_colours(line);
    if plain.chars().count() <= width {
        return vec![line.to_owned()];
    }
    let all: Vec<char> = plain.chars().collect();
    all.chunks(width).map(|part| part.iter().collect()).collect()
}

/// Without `ESC [ ... m`, of which other sequences never come here.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_wide_goes_on_below_and_what_is_too_much_is_counted() {
        assert_eq!(fitted("abcdef\ng", 4, 10), ["abcd", "ef", "g"]);
        assert_eq!(fitted("a\nb\nc\nd", 80, 3), ["a", "b", "... 2 more lines"]);
        assert_eq!(fitted("a\nb", 5, 1), ["... 2"]);
        for (width, height) in [(0, 0), (1, 1), (3, 2), (500, 500)] {
            let lines = fitted("\x1b[1;32ma is active\x1b[0m\n\u{e4}\u{f6}\u{fc}\n\nlock", width, height);
            assert!(lines.len() <= height.max(1), "{lines:?}");
        }
    }

    #[test]
    fn colours_take_no_room_and_are_dropped_where_a_line_is_broken() {
        let line = "\x1b[1;32ma is active\x1b[0m";
        assert_eq!(fitted(line, 11, 5), [line]);
        assert_eq!(fitted(line, 5, 5), ["a is ", "activ", "e"]);
    }
}
