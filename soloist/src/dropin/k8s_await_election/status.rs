//! The status endpoint: every path and method, 200 unless this member is active and should not be any more.

use std::time::Duration;

use axum::http::StatusCode;
use election::Instant;

use crate::snapshot::Snapshot;

/// How much later than the end of its lease an active member is reported.
const TOLERANCE: Duration = Duration::from_secs(2);

/// Followers are healthy; a leader is, unless its last renewal is older than its lease and [`TOLERANCE`]. From the
/// renewal to the deadline it is two thirds of the lease.
pub(super) fn judge(snapshot: &Snapshot, now: Instant, _path: &str) -> (StatusCode, &'static str) {
    let grace = snapshot.lease / 3 + TOLERANCE;
    if snapshot.tenure.is_some_and(|tenure| now > tenure.kill_at + grace) {
        tracing::error!("failed to step down gracefully, reporting unhealthy status");
        (StatusCode::INTERNAL_SERVER_ERROR, "{\"status\": \"expired\"}")
    } else {
        (StatusCode::OK, "{\"status\": \"ok\"}")
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use election::{Activation, Token};

    use super::*;
    use crate::dropin::go::bind;
    use crate::snapshot::{Health, Publisher, Tenure};

    const LEASE: Duration = Duration::from_secs(15);

    fn snapshot(confirmed_ago: Option<Duration>) -> (Snapshot, Instant) {
        let health = Health { healthy: true, why: String::new() };
        let mut snapshot = Snapshot::new("g", "a", LEASE, health, 0);
        let now = Instant::default() + Duration::from_secs(1000);
        snapshot.tenure = confirmed_ago.map(|ago| {
            let kill_at = Instant::default() + Duration::from_secs(1000) - ago + LEASE * 2 / 3;
            Tenure { activation: Activation(1), token: Token(1), stop_at: kill_at, kill_at }
        });
        (snapshot, now)
    }

    fn code(confirmed_ago: Option<Duration>) -> u16 {
        let (snapshot, now) = snapshot(confirmed_ago);
        judge(&snapshot, now, "/").0.as_u16()
    }

    #[test]
    fn only_an_overdue_leader_is_unhealthy() {
        assert_eq!(code(None), 200, "a follower");
        assert_eq!(code(Some(Duration::ZERO)), 200);
        assert_eq!(code(Some(LEASE + TOLERANCE)), 200);
        assert_eq!(code(Some(LEASE + TOLERANCE + Duration::from_millis(1))), 500);
    }

    fn ask(address: &str, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[tokio::test]
    async fn every_path_and_method_gets_the_same_answer() {
        let (mut snapshot, _) = snapshot(None);
        snapshot.lease = LEASE;
        let publisher = Publisher::new(snapshot);
        let bound = bind("127.0.0.1:0").unwrap();
        let address = bound.address().to_string();
        let serving = tokio::spawn(bound.start_probe(publisher.subscribe(), judge).unwrap());
        for (method, path) in [("GET", "/"), ("GET", "/a/b?c=d"), ("POST", "/x"), ("DELETE", "/"), ("BREW", "/pot")] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let answer = ask(&address, &request).to_lowercase();
            assert!(answer.starts_with("http/1.1 200 ok\r\n"), "{method} {path}: {answer}");
            assert!(answer.contains("content-type: text/plain; charset=utf-8\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\n{\"status\": \"ok\"}"), "{answer}");
        }
        publisher.update(|snapshot| {
            let long_ago = Instant::default();
            let (activation, token) = (Activation(1), Token(1));
            snapshot.tenure = Some(Tenure { activation, token, stop_at: long_ago, kill_at: long_ago });
            snapshot.lease = Duration::from_nanos(3);
        });
        let answer = ask(&address, "GET /status HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").to_lowercase();
        assert!(answer.starts_with("http/1.1 500 "), "{answer}");
        assert!(answer.contains("content-type: text/plain; charset=utf-8\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n{\"status\": \"expired\"}"), "{answer}");
        serving.abort();
    }
}
