//! How times and lengths are spelled in JSON: the same at `/status` and in what the verbs print.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Number;

/// A wall-clock time in microseconds since 1970 as RFC 3339 with microseconds; nothing for one that no calendar has.
pub fn time(unix_us: u64) -> Option<String> {
    let time = Timestamp::from_microsecond(i64::try_from(unix_us).ok()?).ok()?;
    Some(format!("{time:.6}"))
}

/// The same, with a mark in the place of a time that no calendar has.
pub fn time_or_mark(unix_us: u64) -> String {
    time(unix_us).unwrap_or_else(|| "?".to_owned())
}

/// Milliseconds with a fraction, from microseconds.
pub fn ms(us: i64) -> f64 {
    us as f64 / 1_000.0
}

/// Microseconds from one wall-clock time to another; negative where the clocks say so.
pub fn from_to_us(from_us: u64, to_us: u64) -> i64 {
    i64::try_from(i128::from(to_us) - i128::from(from_us)).unwrap_or(i64::MAX)
}

/// A length in milliseconds, to the microsecond.
pub fn ms_of(length: Duration) -> f64 {
    length.as_micros() as f64 / 1_000.0
}

/// A length in seconds, whole where it is whole: 15, not 15.0.
pub fn seconds(length: Duration) -> Option<Number> {
    if length.subsec_nanos() == 0 { Some(length.as_secs().into()) } else { Number::from_f64(length.as_secs_f64()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_lengths_are_spelled_as_documented() {
        assert_eq!(time(1_700_000_000_250_000).as_deref(), Some("2023-11-14T22:13:20.250000Z"));
        assert_eq!(time(u64::MAX), None);
        assert_eq!(time_or_mark(u64::MAX), "?");
        assert_eq!(seconds(Duration::from_secs(15)).unwrap().to_string(), "15");
        assert_eq!(seconds(Duration::from_millis(1500)).unwrap().to_string(), "1.5");
    }

    #[test]
    fn clocks_that_differ_give_a_negative_length() {
        assert_eq!(ms(from_to_us(2_000, 500)), -1.5);
    }
}
