use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::ConnectionInfo;
use crate::error::Refusal;
use crate::http::Headers;
use crate::http::headers::Span;

fn connection(peer: &str) -> Arc<ConnectionInfo> {
    let peer: SocketAddr = peer.parse().unwrap();
    Arc::new(ConnectionInfo::new(7, Address::Inet(peer), Address::Inet(peer), false))
}

fn details(target: &[u8], agent: &[u8]) -> Details {
    // As a block that is no header map: proptest has bytes that none takes.
    let mut block = b"user-agent".to_vec();
    block.extend_from_slice(agent);
    let (start, end) = (10, block.len() as u32);
    let spans = vec![Span { name: (0, start), value: (start, end) }];
    Details::new(Bytes::copy_from_slice(target), &Headers::new(block.into(), spans))
}

fn finished<'a>(connection: &'a Arc<ConnectionInfo>, details: &'a Details) -> Finished<'a> {
    Finished {
        connection,
        host: None,
        route: None,
        method: Some(&Method::GET),
        version: Version::HTTP_11,
        status: Some(StatusCode::OK),
        received: 0,
        sent: 12,
        ended: Instant::now(),
        first_byte: None,
        duration: Duration::from_micros(1_500),
        outcome: Outcome::Whole,
        id: None,
        details: Some(details),
    }
}

fn line(format: LogFormat, finished: &Finished<'_>) -> String {
    let mut line = Vec::new();
    write(&mut line, format, finished);
    String::from_utf8(line).unwrap()
}

/// Around the date.
fn around(line: &str) -> (&str, &str) {
    let (before, rest) = line.split_once('[').unwrap();
    (before, rest.split_once(']').unwrap().1)
}

#[test]
fn dates() {
    let at = |seconds: u64, form| {
        let mut line = Vec::new();
        write_date(&mut line, Duration::from_millis(seconds * 1000 + 7), form, &mut (form, 0, String::new()));
        String::from_utf8(line).unwrap()
    };
    assert_eq!(at(1_795_869_715, Date::Common), "28/Nov/2026:12:41:55 +0000");
    assert_eq!(at(1_795_869_715, Date::Rfc3339), "2026-11-28T12:41:55.007Z");
    assert_eq!(at(0, Date::Rfc3339), "1970-01-01T00:00:00.007Z");
}

#[test]
fn a_request_began_by_the_wall_clock() {
    let (connection, details) = (connection("127.0.0.1:1"), details(b"/", b""));
    for age in [0, 1, 3_000] {
        let (age, before) = (Duration::from_secs(age), SystemTime::now());
        let finished = Finished { ended: Instant::now(), duration: age, ..finished(&connection, &details) };
        let said = line(LogFormat::Json, &finished);
        let said = said.strip_prefix("{\"time\":\"").and_then(|said| said.get(..24)).unwrap();
        // Dates in this form stand in their order.
        let about = |time: SystemTime| {
            let mut wanted = Vec::new();
            let since = time.duration_since(UNIX_EPOCH).unwrap() - age;
            write_date(&mut wanted, since, Date::Rfc3339, &mut (Date::Rfc3339, 0, String::new()));
            String::from_utf8(wanted).unwrap()
        };
        let earliest = about(before - Duration::from_millis(2));
        let latest = about(SystemTime::now() + Duration::from_millis(2));
        assert!(*earliest <= *said && *said <= *latest, "{earliest} {said} {latest}");
    }
}

#[test]
fn common_and_combined() {
    let (connection, details) = (connection("192.0.2.255:4711"), details(b"/a?b=c", b"curl \"8\""));
    let finished = finished(&connection, &details);
    let common = line(LogFormat::Common, &finished);
    assert_eq!(around(&common), ("192.0.2.255 - - ", " \"GET /a?b=c HTTP/1.1\" 200 12\n"));
    let combined = line(LogFormat::Combined, &finished);
    assert_eq!(around(&combined).1, " \"GET /a?b=c HTTP/1.1\" 200 12 \"-\" \"curl \\\"8\\\"\"\n");
}

#[test]
fn what_never_became_a_request() {
    let (connection, details) = (connection("[::ffff:192.0.2.1]:1"), details(b"\x16\x03\x01", b"-"));
    let refused = Finished {
        method: None,
        status: Some(StatusCode::BAD_REQUEST),
        outcome: Outcome::Refused(Refusal::RequestLine),
        ..finished(&connection, &details)
    };
    assert_eq!(around(&line(LogFormat::Common, &refused)), ("192.0.2.1 - - ", " \"\\x16\\x03\\x01\" 400 12\n"));
    let json = line(LogFormat::Json, &refused);
    assert!(json.contains(r#""request_line":"\u0016\u0003\u0001""#), "{json}");
    assert!(json.contains(r#""outcome":"refused","refused":"request_line""#), "{json}");
    let left = Finished { status: None, outcome: Outcome::Aborted, sent: 0, ..refused };
    assert!(line(LogFormat::Common, &left).ends_with(" 499 0\n"));
    assert!(line(LogFormat::Json, &left).contains("\"status\":null"));
}

#[test]
fn json_is_ascii() {
    let agent = "\u{e9}\u{1f600}\u{202e}\"\\\n".as_bytes();
    let (connection, details) = (connection("[2001:db8::1]:1"), details(b"/\xff", agent));
    let json = line(LogFormat::Json, &finished(&connection, &details));
    assert!(json.contains(r#""user_agent":"\u00e9\ud83d\ude00\u202e\"\\\u000a""#), "{json}");
    assert!(json.contains(r#""target":"/\ufffd""#), "{json}");
    assert!(json.contains(r#""remote_addr":"2001:db8::1","remote_port":1"#), "{json}");
    assert!(json.contains("\"duration\":0.001500"), "{json}");
}

#[test]
fn what_is_very_long_is_cut() {
    let (connection, details) = (connection("127.0.0.1:1"), details(&[0xff; 100_000], &[b'a'; 100_000]));
    for format in [LogFormat::Combined, LogFormat::Json] {
        let line = line(format, &finished(&connection, &details));
        assert!(line.len() < 8 * LONGEST && line.contains("a..."), "{}", line.len());
    }
}

proptest! {
    /// Whatever a client sends, its line is one line, printable, and its quotes are even.
    #[test]
    fn a_line_is_one_line(target: Vec<u8>, agent: Vec<u8>) {
        let (connection, details) = (connection("127.0.0.1:1"), details(&target, &agent));
        for format in [LogFormat::Common, LogFormat::Combined, LogFormat::Json] {
            let line = line(format, &finished(&connection, &details));
            let text = line.strip_suffix('\n').unwrap();
            prop_assert!(text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)), "{text}");
            let bare = text.replace("\\\\", "").replace("\\\"", "");
            prop_assert_eq!(bare.matches('"').count() % 2, 0, "{}", text);
        }
    }
}
