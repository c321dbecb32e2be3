use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::config::Config;

fn machine(now: Instant) -> Machine {
    Machine::new(Limits::from(&Config::default()), now)
}

/// What a whole exchange looks like from outside.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    requests: Vec<(String, String, Vec<u8>)>,
    refused: Option<Refusal>,
}

/// Feeds `pieces`, answering each request as soon as it is whole.
fn run(pieces: &[&[u8]]) -> Seen {
    let now = Instant::now();
    let mut machine = machine(now);
    let mut seen = Seen { requests: Vec::new(), refused: None };
    let mut current = None;
    for piece in pieces {
        machine.receive(piece, now);
        loop {
            match machine.next_event(now) {
                Ok(Event::NeedMore | Event::End { .. }) => break,
                Ok(Event::Request(head)) => {
                    current = Some((head.method.to_string(), head.target.raw_path().to_string(), Vec::new()));
                }
                Ok(Event::Body(data)) => current.as_mut().unwrap().2.extend_from_slice(&data),
                Ok(Event::EndOfBody) => {
                    seen.requests.push(current.take().unwrap());
                    machine.answered(now);
                }
                Err(error) => {
                    seen.refused = Some(error.refusal);
                    return seen;
                }
            }
        }
    }
    seen
}

fn refused(wire: &str) -> Option<Refusal> {
    run(&[wire.as_bytes()]).refused
}

#[test]
fn pipelined_requests_are_all_seen() {
    let seen = run(&[b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /c HTTP/1.1\r\nHost: h\r\n\r\n"]);
    let expected = [("GET", "/a", ""), ("POST", "/b", "abc"), ("GET", "/c", "")]
        .map(|(m, p, b)| (m.to_string(), p.to_string(), b.as_bytes().to_vec()));
    assert_eq!(seen, Seen { requests: expected.to_vec(), refused: None });
}

#[test]
fn refusals() {
    use Refusal::*;
    let get = |headers: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n");
    for (wire, refusal) in [
        ("GET / HTTP/1.1\r\n\r\n".to_string(), Host),
        (get("Host: h"), Host),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), Host),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), Host),
        (get("Content-Length: 1\r\nTransfer-Encoding: chunked"), Framing),
        (get("Content-Length: 1\r\nContent-Length: 1"), Framing),
        (get("Content-Length: 1, 1"), Framing),
        (get("Content-Length: +1"), Framing),
        (get("Content-Length: -1"), Framing),
        (get("Content-Length: 0x1"), Framing),
        (get("Content-Length:"), Framing),
        (get("Content-Length: 99999999999999999999"), Framing),
        (get("Content-Length: 99999999999"), BodyBytes),
        (get("Transfer-Encoding: chunked, chunked"), Framing),
        (get("Transfer-Encoding: gzip, chunked"), NotImplemented),
        (get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), Framing),
        (get("Transfer-Encoding: \u{b}chunked"), Header),
        (get("Transfer-Encoding: identity"), Framing),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), Framing),
        (get("Expect: 200-ok"), Expectation),
        (get("a : b"), Header),
        (get(": b"), Header),
        (get("a: b\r\n folded"), Header),
        (get("a: b\0"), Header),
        (get("a: b\rc: d"), Header),
        ("GET / HTTP/1.1\nHost: h\n\n".into(), RequestLine),
        ("GET / HTTP/1.1\r\nHost: h\n\r\n".into(), Header),
        ("\n".into(), RequestLine),
        ("\r\n\r\nGET / HTTP/1.1\r\n".into(), RequestLine),
        ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n".into(), RequestLine),
        ("GET / HTTP/1.1 \r\nHost: h\r\n\r\n".into(), RequestLine),
        ("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n".into(), RequestLine),
        ("GET / http/1.1\r\nHost: h\r\n\r\n".into(), RequestLine),
        // At the end of its line: nothing follows that would make it right.
        ("GET /\r\n".into(), RequestLine),
        ("GET / HTTP/2.0\r\n".into(), Version),
        ("TRACE / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n".into(), Framing),
        (get("Content-Length: 01"), Framing),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n".into(), Version),
        ("GET / HTTP/1.2\r\nHost: h\r\n\r\n".into(), Version),
        ("\u{16}\u{3}\u{1}".into(), RequestLine),
        ("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n".into(), NotImplemented),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(70_000)), TargetBytes),
        (format!("{} / HTTP/1.1\r\n", "x".repeat(70_000)), RequestLine),
        (get(&format!("a: {}", "x".repeat(70_000))), HeaderBytes),
        (get(&vec!["a: b"; 101].join("\r\n")), Headers),
    ] {
        assert_eq!(refused(&wire), Some(refusal), "{:?}", wire.get(..80).unwrap_or(&wire));
    }
}

#[test]
fn odd_but_right() {
    for wire in [
        "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nhOST: h\r\nEmpty:\r\nA:\tb \r\n\r\n",
        "GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        "BREW / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /?q={a}%20\"b\"'c'|` HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        let seen = run(&[wire.as_bytes()]);
        assert_eq!((seen.requests.len(), seen.refused), (1, None), "{wire:?}");
    }
    let hundred = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(99));
    assert_eq!(run(&[hundred.as_bytes()]).requests.len(), 1);
}

#[test]
fn keep_alive_by_version_and_header() {
    for (wire, keep) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
    ] {
        let now = Instant::now();
        let mut machine = machine(now);
        machine.receive(wire.as_bytes(), now);
        let Ok(Event::Request(head)) = machine.next_event(now) else { panic!("{wire:?}") };
        assert_eq!(head.keep_alive, keep, "{wire:?}");
    }
}

#[test]
fn each_wait_has_its_time() {
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    let mut machine = machine(start);
    assert_eq!(machine.deadline(), Some((later(10), Wait::First)));
    machine.receive(b"POST / HTTP/1.1\r\n", later(1));
    assert!(matches!(machine.next_event(later(1)), Ok(Event::NeedMore)));
    assert_eq!(machine.deadline(), Some((later(11), Wait::Head)));
    machine.receive(b"Host: h\r\nContent-Length: 4097\r\n", later(2));
    assert!(matches!(machine.next_event(later(2)), Ok(Event::NeedMore)));
    assert_eq!(machine.deadline(), Some((later(11), Wait::Head)), "dripping wins no time");
    machine.receive(b"\r\n", later(3));
    assert!(matches!(machine.next_event(later(3)), Ok(Event::Request(_))));
    assert_eq!(machine.deadline(), Some((later(33), Wait::Body)));
    machine.receive(b"a", later(20));
    assert_eq!(machine.deadline(), Some((later(33), Wait::Body)), "nor does it with a body");
    machine.receive(&[b'b'; 4095], later(20));
    assert_eq!(machine.deadline(), Some((later(50), Wait::Body)), "much of it is progress");
    machine.receive(b"c", later(21));
    for _ in 0..2 {
        assert!(matches!(machine.next_event(later(21)), Ok(Event::Body(_) | Event::EndOfBody)));
    }
    while !matches!(machine.next_event(later(21)), Ok(Event::NeedMore)) {}
    assert_eq!(machine.deadline(), None, "the peer is not waited for while its request is answered");
    machine.answered(later(22));
    assert_eq!(machine.deadline(), Some((later(82), Wait::Idle)));
}

#[test]
fn an_empty_line_begins_no_request() {
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    let mut machine = machine(start);
    machine.receive(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", start);
    while !matches!(machine.next_event(start).unwrap(), Event::EndOfBody) {}
    machine.answered(start);
    for byte in [b"\r", b"\n"] {
        machine.receive(byte, later(1));
        assert!(matches!(machine.next_event(later(1)), Ok(Event::NeedMore)));
        assert_eq!(machine.deadline(), Some((later(60), Wait::Idle)));
    }
    assert!(machine.is_idle());
}

#[test]
fn the_end_is_clean_only_between_requests() {
    let now = Instant::now();
    for (wire, expected) in
        [("", true), ("GET / HT", false), ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na", false)]
    {
        let mut machine = machine(now);
        machine.receive(wire.as_bytes(), now);
        machine.receive_end();
        let clean = loop {
            match machine.next_event(now).unwrap() {
                Event::End { clean } => break clean,
                Event::NeedMore => panic!("{wire:?}"),
                _ => {}
            }
        };
        assert_eq!(clean, expected, "{wire:?}");
    }
}

#[test]
fn an_idle_machine_holds_no_buffer() {
    let now = Instant::now();
    let mut machine = machine(now);
    machine.receive(&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(40), now);
    for _ in 0..40 {
        while !matches!(machine.next_event(now).unwrap(), Event::EndOfBody) {}
        machine.answered(now);
    }
    assert!(matches!(machine.next_event(now), Ok(Event::NeedMore)));
    assert_eq!(machine.buffer.capacity(), 0);
}

fn wire() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![
        Just("GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n".to_string()),
        Just("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello".to_string()),
        Just(
            "PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n".to_string()
        ),
        Just("GET / HTTP/1.0\r\n\r\n".to_string()),
        Just("GET / HTTP/1.1\r\n\r\n".to_string()),
        "[ -~\r\n]{0,60}",
    ];
    prop::collection::vec(good, 0..5).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    /// How the bytes are cut changes nothing about what is seen.
    #[test]
    fn fragments_do_not_matter(wire in wire(), cuts in prop::collection::vec(1usize..12, 1..60)) {
        let whole = run(&[&wire]);
        let mut pieces = Vec::new();
        let mut rest = &wire[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        prop_assert_eq!(whole, run(&pieces));
    }

    #[test]
    fn junk_never_panics(junk in prop::collection::vec(any::<u8>(), 0..300)) {
        run(&[&junk]);
    }
}
