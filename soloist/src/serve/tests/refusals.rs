//! What is refused before anybody thinks about it.

use super::*;

fn get(stand: &Stand, request: &str) -> Answer {
    stand.client().ask(&format!("{request}\r\n\r\n"))
}

#[test]
fn unknown_path_is_404() {
    let stand = Stand::up();
    for path in ["/activ", "/index.html", "/active/", "/Active", "//active", "/status/x", "/%61ctive"] {
        stand.get(path).refuses(404, "there are /active, /healthz");
    }
    stand.post("/nowhere", "{}").refuses(404, "nothing is here");
}

#[test]
fn wrong_verb_is_405_and_tells_the_right_one() {
    let stand = Stand::up();
    for path in ["/active", "/healthz", "/readyz", "/status", "/history", "/events", "/metrics", "/"] {
        for verb in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = get(&stand, &format!("{verb} {path} HTTP/1.1\r\nhost: x"));
            answer.refuses(405, &format!("{path} does not take {verb}"));
            assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{answer:?}");
        }
    }
    for path in ["/switchover", "/pause", "/resume"] {
        let answer = stand.get(path);
        answer.refuses(405, "POST is allowed");
        assert_eq!(answer.header("allow"), Some("POST"));
    }
}

#[test]
fn body_where_none_belongs_is_400() {
    let stand = Stand::up();
    for path in ["/active", "/healthz", "/readyz", "/status", "/history", "/events", "/metrics", "/"] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n");
        get(&stand, &format!("{head}content-length: 2\r\n\r\n{{}}")).refuses(400, "a body does not belong here");
        get(&stand, &format!("{head}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0")).refuses(400, "a body");
        let mut client = stand.client();
        client.say(&format!("{head}content-length: 0\r\n\r\n"));
        let head = client.head();
        assert!(!head.starts_with("HTTP/1.1 400"), "{path}: {head}");
    }
}

#[test]
fn headers_over_8_kib_are_431() {
    let stand = Stand::up();
    let with = |bytes: usize| {
        let filler = "x".repeat(bytes);
        get(&stand, &format!("GET /status HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-filler: {filler}")).status
    };
    assert_eq!(with(7 * 1024), 200);
    assert_eq!(with(8 * 1024), 431);
    assert_eq!(with(40 * 1024), 431);
    // One whose end does not come.
    let mut client = stand.client();
    client.say(&format!("GET /status HTTP/1.1\r\nx-filler: {}", "x".repeat(20 * 1024)));
    assert_eq!(client.answer().status, 431);
    let many: String = (0..300).map(|number| format!("x-{number}: 1\r\n")).collect();
    assert_eq!(get(&stand, &format!("GET /status HTTP/1.1\r\n{many}host: x")).status, 431);
}

#[test]
fn what_is_no_http_is_400() {
    let stand = Stand::up();
    for text in ["nonsense", "GET /status", "GET  /status HTTP/1.1", "\u{16}\u{3}\u{1}", "GET /status HTTP/9.9"] {
        assert_eq!(get(&stand, text).status, 400, "{text:?}");
    }
    assert_eq!(stand.get("/active").status, 503);
}

#[test]
fn body_over_64_kib_is_413() {
    let (stand, _orders) = Plan::unix().put_up();
    let head = "POST /switchover HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    // By its length alone: nothing of it was sent.
    get(&stand, &format!("{head}content-length: 65537")).refuses(413, "at most 65536 bytes");
    let chunk = "x".repeat(4096);
    let chunks = format!("1000\r\n{chunk}\r\n").repeat(17);
    get(&stand, &format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}0")).refuses(413, "too large");
    let full = "x".repeat(65_536);
    stand.post("/switchover", &full).refuses(400, "failed to read the body");
}

#[test]
fn body_that_is_not_json_is_415() {
    let (stand, _orders) = Plan::unix().put_up();
    for kind in ["", "content-type: text/plain\r\n", "content-type: application/jsonx\r\n"] {
        stand.post_with("/switchover", kind, "{}").refuses(415, "Content-Type: application/json");
    }
}

#[test]
fn body_that_cannot_be_understood_is_400() {
    let (stand, _orders) = Plan::unix().put_up();
    for body in ["{", "[]", "null", "{\"to\":7}", "{} x", "\u{0}"] {
        stand.post("/switchover", body).refuses(400, "failed to read the body");
    }
    stand.post("/switchover", "{\"too\":\"b\"}").refuses(400, "unknown field `too`");
    stand.post("/pause", "{\"for\":\"1m\",\"why\":\"x\"}").refuses(400, "unknown field `why`");
    stand.post("/resume", "{\"for\":\"1m\"}").refuses(400, "unknown field `for`");
    stand.post("/pause", "").refuses(400, "missing field `for`");
    for length in ["", "soon", "-1s", "0s", "25h", "15"] {
        stand.post("/pause", &format!("{{\"for\":\"{length}\"}}")).refuses(400, "for ");
    }
    stand.post("/resume?now", "{}").refuses(400, "takes no query");
}

#[test]
fn request_without_the_token_is_401() {
    let (stand, _orders) = Plan { token: Some("s3cret\n"), ..Plan::default() }.put_up();
    for path in ["/switchover", "/pause", "/resume"] {
        for header in ["", "authorization: Bearer wrong\r\n", "authorization: Basic s3cret\r\n"] {
            let answer = stand.post_with(path, header, "{}");
            answer.refuses(401, "");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert!(!answer.body.contains("s3cret"));
        }
    }
    // Nothing of a stranger's body is looked at.
    let head = "POST /pause HTTP/1.1\r\nhost: x\r\n";
    get(&stand, &format!("{head}content-length: 99999999")).refuses(401, "Authorization: Bearer");
    assert_eq!(stand.get("/status").status, 200, "questions need no token");
}

#[test]
fn without_a_token_file_nobody_of_the_network_may_ask() {
    let stand = Stand::up();
    stand.post("/resume", "{}").refuses(401, "without --http-token-file there is none");
    let (stand, _orders) = Plan { token: Some(" \n"), ..Plan::default() }.put_up();
    stand.post_with("/resume", "authorization: Bearer \r\n", "{}").refuses(401, "the token file is empty");
}
