use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use super::*;
use crate::settings::target::Address;

const LIMIT: Duration = Duration::from_secs(20);

/// A server for one connection, which reads a request and writes `answer`.
fn serve(answer: &'static [u8]) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        talk(stream, answer);
    });
    Target { address: Address::Tcp("127.0.0.1".to_owned(), port), host: "x".to_owned(), path: "/healthz".to_owned() }
}

fn talk(mut stream: impl Read + Write, answer: &[u8]) {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = stream.read(&mut chunk).unwrap();
        if read == 0 {
            return;
        }
        request.extend(&chunk[..read]);
    }
    let request = String::from_utf8(request).unwrap();
    assert!(request.starts_with("GET /healthz HTTP/1.1\r\n") && request.contains("host: x\r\n"), "{request}");
    let _ = stream.write_all(answer);
}

fn why(finding: Finding) -> String {
    match finding {
        Finding::Fail(why) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_hundreds_are_healthy_and_nothing_else_is() {
    for answer in
        [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"HTTP/1.0 204 \r\n\r\n", b"HTTP/1.1 299 X\r\ncontent-length: 5\r\n\r\n"]
    {
        assert_eq!(ask(&serve(answer), LIMIT).await, Finding::Pass);
    }
    let redirect = ask(&serve(b"HTTP/1.1 301 Moved\r\nlocation: /ok\r\n\r\n"), LIMIT).await;
    assert!(why(redirect).contains("not followed"));
    let failure = ask(&serve(b"HTTP/1.1 503 No\r\n\r\n"), LIMIT).await;
    assert_eq!(why(failure), "the answer is 503 Service Unavailable");
}

#[tokio::test]
async fn garbage_and_floods_are_failures() {
    static FLOOD: [u8; 1 << 20] = [b'a'; 1 << 20];
    for answer in [&b"SSH-2.0-OpenSSH\r\n"[..], b"", b"HTTP/1.1 2", b"\0\xff\xff", &FLOOD] {
        let why = why(ask(&serve(answer), LIMIT).await);
        assert!(why.starts_with("failed to understand the answer"), "{why}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_its_time_and_no_more() {
    // A backlog takes the connection; nobody ever reads from it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = Address::Tcp("127.0.0.1".to_owned(), port);
    let target = Target { address, host: "x".to_owned(), path: "/".to_owned() };
    let start = Instant::now();
    assert_eq!(why(ask(&target, Duration::from_millis(100)).await), "no answer within 100ms");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failure() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = Address::Tcp("127.0.0.1".to_owned(), port);
    let target = Target { address, host: "x".to_owned(), path: "/".to_owned() };
    let why = why(ask(&target, LIMIT).await);
    assert!(why.starts_with("failed to connect: "), "{why}");
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || talk(listener.accept().unwrap().0, b"HTTP/1.1 200 OK\r\n\r\n"));
    let target = Target { address: Address::Unix(path), host: "x".to_owned(), path: "/healthz".to_owned() };
    assert_eq!(ask(&target, LIMIT).await, Finding::Pass);
}
