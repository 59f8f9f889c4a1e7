//! The inequality on one time line. ASCII, in as many columns as there are.

use std::time::Duration;

use election::{EPSILON, Timing};

use super::super::operate::print::exactly;

/// In fewer columns marks could not be told apart; in more nothing becomes clearer.
const COLUMNS: std::ops::RangeInclusive<usize> = 40..=100;
/// What stands before a lane.
const MARGIN: usize = 9;

/// An instant of the time line, with the letter that marks it.
struct Mark {
    letter: char,
    at: Duration,
    what: String,
}

/// Where a lane has what between two marks.
struct Stretch {
    from: usize,
    to: usize,
    with: char,
}

/// Two lanes, what the holder does and what the others do, and what each mark is.
pub(super) fn draw(timing: &Timing, width: usize) -> String {
    let marks = marks(timing);
    let columns = columns(&marks, width.clamp(*COLUMNS.start(), *COLUMNS.end()) - MARGIN);
    let holder = lane(
        &marks[..5],
        &columns,
        &[
            Stretch { from: 0, to: 1, with: '=' },
            Stretch { from: 1, to: 2, with: 'g' },
            Stretch { from: 2, to: 3, with: '~' },
            Stretch { from: 3, to: 4, with: 'k' },
        ],
        0,
    );
    let others =
        lane(&marks[5..], &columns, &[Stretch { from: 0, to: 5, with: '.' }, Stretch { from: 5, to: 6, with: '~' }], 5);
    let mut lines = vec![format!(" holder  {holder}"), format!(" others  {others}"), String::new()];
    lines.extend(marks.iter().map(|mark| format!(" {}  {:<9} {}", mark.letter, exactly(mark.at), mark.what)));
    let slack = timing.slack().unwrap_or_default();
    lines.push(String::new());
    lines.push(format!(" E to F  {} to spare", exactly(slack)));
    lines.join("\n")
}

fn marks(timing: &Timing) -> Vec<Mark> {
    let [lateness, proof, epsilon] = [timing.lateness(), timing.proof(), EPSILON].map(exactly);
    let loss = timing.kill_after().saturating_sub(timing.grace());
    let whats = [
        (Duration::ZERO, "a renewal is sent; both sides count from here".to_owned()),
        (loss, "SIGTERM, unless another one was confirmed: D-G".to_owned()),
        (timing.kill_after(), "SIGKILL by the guard: D".to_owned()),
        (timing.slow_kill_after(), "the same, on a clock that is slow by a tenth: D/(1-rho)".to_owned()),
        (
            timing.gone_by(),
            format!("all is gone: guard late {lateness} (S), kill to proof {proof} (P), {epsilon} (eps)"),
        ),
        (timing.earliest_start(), "the next one may start, on a clock that is fast by a tenth: L/(1+rho)".to_owned()),
        (timing.lease(), "the same, on a clock that is right: L".to_owned()),
    ];
    let letters = 'A'..='G';
    letters.zip(whats).map(|(letter, (at, what))| Mark { letter, at, what }).collect()
}

/// The columns of the marks: to scale, but never two in one.
fn columns(marks: &[Mark], width: usize) -> Vec<usize> {
    let whole = marks.last().map_or(1, |mark| mark.at.as_millis().max(1));
    let last = width - 1;
    let mut columns: Vec<usize> = Vec::new();
    for (index, mark) in marks.iter().enumerate() {
        let scaled = usize::try_from(mark.at.as_millis() * last as u128 / whole).unwrap_or(last);
        let least = columns.last().map_or(0, |before| before + 1);
        // Those that follow need a column each.
        let most = last - (marks.len() - 1 - index);
        columns.push(scaled.max(least).min(most));
    }
    columns
}

fn lane(marks: &[Mark], columns: &[usize], stretches: &[Stretch], first: usize) -> String {
    let end = columns[first + marks.len() - 1];
    let mut line = vec![' '; end + 1];
    for stretch in stretches {
        line[columns[stretch.from]..columns[stretch.to]].fill(stretch.with);
    }
    for (mark, column) in marks.iter().zip(&columns[first..]) {
        line[*column] = mark.letter;
    }
    line.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(ms: u64) -> Timing {
        Timing::new(Duration::from_millis(ms), None).unwrap()
    }

    #[test]
    fn the_holder_ends_before_the_others_begin_in_any_width() {
        for width in [0, 20, 40, 80, 100, 400] {
            for ms in [1_713, 4_000, 15_000, 60_000, 86_400_000] {
                let drawing = draw(&timing(ms), width);
                assert!(drawing.is_ascii(), "{drawing}");
                let lanes: Vec<&str> = drawing.lines().take(2).collect();
                let at = |letter: char| lanes.iter().find_map(|lane| lane[MARGIN..].find(letter)).unwrap();
                let columns: Vec<usize> = ('A'..='G').map(at).collect();
                assert!(columns.is_sorted() && columns[0] == 0, "{width} {ms}: {drawing}");
                assert!(lanes.iter().all(|lane| lane.len() <= width.clamp(40, 100)), "{width}: {drawing}");
            }
        }
    }

    #[test]
    fn marks_are_to_scale_and_named() {
        let drawing = draw(&timing(15_000), 100);
        let holder = drawing.lines().next().unwrap();
        let killed = holder[MARGIN..].find('C').unwrap();
        assert_eq!(killed, 90 * 10 / 15, "{drawing}");
        for text in ["A  0s ", "B  8s ", "C  10s ", "E  11.826s ", "F  13.636s ", "G  15s ", "1.81s to spare"] {
            assert!(drawing.contains(text), "{text}: {drawing}");
        }
    }
}
