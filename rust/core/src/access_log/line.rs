//! What a line says, in each format. Whatever a client sent is escaped, so that a line is one line of printable ASCII in whatever
//! shows it (CWE-117), and cut where it is very long.

use std::cell::RefCell;
use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Version};
use time::OffsetDateTime;

use super::LogFormat;
use crate::connection::Address;
use crate::record::{Details, Finished, Outcome};
use crate::request_id;

/// The most bytes of a target or a header that a line shows.
const LONGEST: usize = 4096;
/// What clients get that have left before there was a response: nothing. nginx has made this number known for it.
const LEFT: u16 = 499;

/// Appends the line of one request.
pub(super) fn write(line: &mut Vec<u8>, format: LogFormat, finished: &Finished<'_>) {
    match format {
        LogFormat::Common => common(line, finished),
        LogFormat::Combined => {
            common(line, finished);
            let details = finished.details;
            for header in [details.and_then(Details::referer), details.and_then(Details::user_agent)] {
                line.extend_from_slice(b" \"");
                match header {
                    Some(value) => escape(line, value, in_quotes),
                    None => line.push(b'-'),
                }
                line.push(b'"');
            }
        }
        LogFormat::Json => json(line, finished),
    }
    line.push(b'\n');
}

// ---- Common and Combined

fn common(line: &mut Vec<u8>, finished: &Finished<'_>) {
    client(line, finished);
    line.extend_from_slice(b" - - [");
    date(line, finished, Date::Common);
    line.extend_from_slice(b"] \"");
    let target = finished.details.map_or(&b""[..], |details| &details.target);
    match finished.method {
        Some(method) => {
            // A token, which has nothing to escape (RFC 9110 section 9.1).
            line.extend_from_slice(method.as_str().as_bytes());
            line.push(b' ');
            escape(line, target, in_quotes);
            line.push(b' ');
            line.extend_from_slice(protocol(finished.version));
        }
        None if target.is_empty() => line.push(b'-'),
        // A line that is no request line, as it came.
        None => escape(line, target, in_quotes),
    }
    line.extend_from_slice(b"\" ");
    match finished.status {
        Some(status) => line.extend_from_slice(status.as_str().as_bytes()),
        None if finished.outcome == Outcome::Shutdown => line.push(b'-'),
        None => number(line, LEFT.into()),
    }
    line.push(b' ');
    number(line, finished.sent);
}

/// In the manner of Apache: `\"`, `\\`, and `\xhh` for what is not printable.
fn in_quotes(line: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
        _ => line.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte)]),
    }
}

// ---- JSON

fn json(line: &mut Vec<u8>, finished: &Finished<'_>) {
    let connection = finished.connection;
    let nothing = Details::default();
    let details = finished.details.unwrap_or(&nothing);
    line.extend_from_slice(b"{\"time\":\"");
    date(line, finished, Date::Rfc3339);
    line.extend_from_slice(b"\",\"remote_addr\":\"");
    client(line, finished);
    line.push(b'"');
    match (details.client, &connection.peer) {
        (None, Address::Inet(peer)) => entry(line, b",\"remote_port\":", peer.port().into()),
        (None, Address::Unix(_)) => {}
        // Whose word it is.
        (Some(_), peer) => {
            line.extend_from_slice(b",\"proxy_addr\":\"");
            address(line, peer);
            line.push(b'"');
        }
    }
    // Of several processes each counts its connections by itself.
    entry(line, b",\"pid\":", std::process::id().into());
    entry(line, b",\"connection\":", connection.id);
    match finished.method {
        Some(method) => {
            text(line, b",\"method\":\"", Some(method.as_str().as_bytes()));
            text(line, b",\"target\":\"", Some(&details.target));
        }
        None => text(line, b",\"request_line\":\"", Some(&details.target)),
    }
    text(line, b",\"protocol\":\"", Some(protocol(finished.version)));
    text(line, b",\"host\":\"", details.host());
    text(line, b",\"server_name\":\"", finished.host.map(str::as_bytes));
    text(line, b",\"route\":\"", finished.route.map(str::as_bytes));
    match finished.status {
        Some(status) => entry(line, b",\"status\":", status.as_u16().into()),
        None => line.extend_from_slice(b",\"status\":null"),
    }
    entry(line, b",\"bytes_received\":", finished.received);
    entry(line, b",\"bytes_sent\":", finished.sent);
    seconds(line, b",\"duration\":", finished.duration);
    if let Some(first_byte) = finished.time_to_first_byte() {
        seconds(line, b",\"time_to_first_byte\":", first_byte);
    }
    text(line, b",\"outcome\":\"", Some(finished.outcome.label().as_bytes()));
    if let Outcome::Refused(why) = finished.outcome {
        text(line, b",\"refused\":\"", Some(why.label().as_bytes()));
    }
    text(line, b",\"request_id\":\"", finished.id.map(HeaderValue::as_bytes));
    if let Some((trace, parent)) = details.traceparent().and_then(request_id::trace) {
        text(line, b",\"trace_id\":\"", Some(trace));
        text(line, b",\"parent_id\":\"", Some(parent));
    }
    text(line, b",\"referer\":\"", details.referer());
    text(line, b",\"user_agent\":\"", details.user_agent());
    if connection.secure {
        text(line, b",\"tls_version\":\"", connection.tls_version.map(str::as_bytes));
        text(line, b",\"tls_cipher\":\"", connection.cipher.map(str::as_bytes));
        text(line, b",\"tls_server_name\":\"", connection.sni.as_deref().map(str::as_bytes));
        let resumed: &[u8] = if connection.resumed { b",\"tls_resumed\":true" } else { b",\"tls_resumed\":false" };
        line.extend_from_slice(resumed);
    }
    line.push(b'}');
}

/// An entry that is a number; `key` has everything before it.
fn entry(line: &mut Vec<u8>, key: &[u8], value: u64) {
    line.extend_from_slice(key);
    number(line, value);
}

/// An entry in seconds, with six digits behind the point.
fn seconds(line: &mut Vec<u8>, key: &[u8], value: Duration) {
    entry(line, key, value.as_secs());
    line.push(b'.');
    padded(line, value.subsec_micros(), 6);
}

/// An entry that is a text, only where there is one; `key` has everything before it, its first quote too.
fn text(line: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    let Some(value) = value else { return };
    line.extend_from_slice(key);
    if value.is_ascii() {
        escape(line, value, in_json);
    } else {
        let cut = &value[..value.len().min(LONGEST)];
        for unit in String::from_utf8_lossy(cut).encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if is_plain(byte) => line.push(byte),
                Ok(byte) if byte < 0x80 => in_json(line, byte),
                _ => {
                    // Writing to a Vec cannot fail.
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }
        }
        if cut.len() < value.len() {
            line.extend_from_slice(b"...");
        }
    }
    line.push(b'"');
}

/// RFC 8259 section 7.
fn in_json(line: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
        _ => line.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte)]),
    }
}

// ---- what they share

/// Neither a control character nor one that ends a text, and ASCII.
fn is_plain(byte: u8) -> bool {
    PLAIN[usize::from(byte)]
}

/// A table, since each byte of a line is looked at.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte <= 0x7e {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

fn escape(line: &mut Vec<u8>, text: &[u8], escaped: fn(&mut Vec<u8>, u8)) {
    let mut left = &text[..text.len().min(LONGEST)];
    while let Some(at) = left.iter().position(|byte| !is_plain(*byte)) {
        line.extend_from_slice(&left[..at]);
        escaped(line, left[at]);
        left = &left[at + 1..];
    }
    line.extend_from_slice(left);
    if text.len() > LONGEST {
        line.extend_from_slice(b"...");
    }
}

fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble & 0xf)]
}

fn number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// With zeros before it, up to so many digits.
fn padded(line: &mut Vec<u8>, number: u32, digits: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(number).as_bytes();
    line.resize(line.len() + digits.saturating_sub(text.len()), b'0');
    line.extend_from_slice(text);
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2.0",
        _ => b"HTTP/1.1",
    }
}

/// Who asked: the client that a trusted proxy names, or else the other end of the connection.
fn client(line: &mut Vec<u8>, finished: &Finished<'_>) {
    match finished.details.and_then(|details| details.client) {
        None => address(line, &finished.connection.peer),
        Some(Some(client)) => ip(line, client.ip()),
        // The proxy keeps it to itself.
        Some(None) => line.push(b'-'),
    }
}

/// Without the port.
fn address(line: &mut Vec<u8>, peer: &Address) {
    match peer {
        Address::Inet(peer) => ip(line, peer.ip()),
        Address::Unix(_) => line.extend_from_slice(b"unix:"),
    }
}

/// An IPv4 client of an IPv6 socket as the IPv4 client that it is.
fn ip(line: &mut Vec<u8>, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            // By hand: 208 instructions and not 278, in each line.
            let (mut text, mut end) = ([b'.'; 16], 0);
            for octet in ip.octets() {
                let digits = [octet / 100, octet / 10 % 10, octet % 10];
                for digit in &digits[usize::from(octet < 100) + usize::from(octet < 10)..] {
                    text[end] = b'0' + digit;
                    end += 1;
                }
                end += 1;
            }
            line.extend_from_slice(&text[..end - 1]);
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(ip) => drop(write!(line, "{ip}")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Date {
    /// `28/Nov/2026:12:41:55 +0000`
    Common,
    /// `2026-11-28T12:41:55.123Z` (RFC 3339)
    Rfc3339,
}

/// How long one look at the wall clock is good for.
const CLOCK: Duration = Duration::from_millis(500);

/// What a thread knows of the time.
struct Clock {
    /// Moments of both clocks that were one.
    looked: (Instant, Duration),
    /// The text of the second that was written last.
    last: (Date, u64, String),
}

/// When a request began, which has just ended; always in UTC.
fn date(line: &mut Vec<u8>, finished: &Finished<'_>, form: Date) {
    thread_local! {
        static CLOCK_HERE: RefCell<Option<Clock>> = const { RefCell::new(None) };
    }
    CLOCK_HERE.with_borrow_mut(|known| {
        let is_new = |clock: &&mut Clock| finished.ended.saturating_duration_since(clock.looked.0) < CLOCK;
        let clock = match known.as_mut().filter(is_new) {
            Some(_) => known.as_mut(),
            None => {
                let (now, time) = (Instant::now(), SystemTime::now());
                let looked = (now, time.duration_since(UNIX_EPOCH).unwrap_or_default());
                let last = known.take().map_or((form, 0, String::new()), |clock| clock.last);
                Some(known.insert(Clock { looked, last }))
            }
        };
        let Some(Clock { looked: (then, time), last }) = clock else { return };
        let ended = *time + finished.ended.saturating_duration_since(*then);
        write_date(line, ended.saturating_sub(finished.duration), form, last);
    });
}

fn write_date(line: &mut Vec<u8>, since: Duration, form: Date, last: &mut (Date, u64, String)) {
    let seconds = since.as_secs();
    if last.2.is_empty() || (last.0, last.1) != (form, seconds) {
        *last = (form, seconds, spell(seconds, form));
    }
    line.extend_from_slice(last.2.as_bytes());
    match form {
        Date::Common => line.extend_from_slice(b" +0000"),
        Date::Rfc3339 => {
            line.push(b'.');
            padded(line, since.subsec_millis(), 3);
            line.push(b'Z');
        }
    }
}

fn spell(seconds: u64, form: Date) -> String {
    let seconds = i64::try_from(seconds).unwrap_or_default();
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (at.year(), at.month(), at.day());
    let clock = format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second());
    match form {
        Date::Common => format!("{day:02}/{}/{year}:{clock}", &month.to_string()[..3]),
        Date::Rfc3339 => format!("{year:04}-{:02}-{day:02}T{clock}", u8::from(month)),
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
