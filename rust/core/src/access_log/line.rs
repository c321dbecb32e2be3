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
    address(line, &finished.connection.peer);
    line.extend_from_slice(b" - - [");
    date(line, finished.began, Date::Common);
    line.extend_from_slice(b"] \"");
    let target = finished.details.map_or(&b""[..], |details| &details.target);
    match finished.method {
        Some(method) => {
            escape(line, method.as_str().as_bytes(), in_quotes);
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
    let mut object = Object { line, first: true };
    object.key("time").push(b'"');
    date(object.line, finished.began, Date::Rfc3339);
    object.line.push(b'"');
    object.key("remote_addr").push(b'"');
    address(object.line, &connection.peer);
    object.line.push(b'"');
    if let Address::Inet(peer) = &connection.peer {
        object.number("remote_port", peer.port().into());
    }
    object.number("connection", connection.id);
    match finished.method {
        Some(method) => {
            object.text("method", Some(method.as_str().as_bytes()));
            object.text("target", Some(&details.target));
        }
        None => object.text("request_line", Some(&details.target)),
    }
    object.text("protocol", Some(protocol(finished.version)));
    object.text("host", details.host());
    object.text("server_name", finished.host.map(str::as_bytes));
    object.text("route", finished.route.map(str::as_bytes));
    match finished.status {
        Some(status) => object.number("status", status.as_u16().into()),
        None => object.key("status").extend_from_slice(b"null"),
    }
    object.number("bytes_received", finished.received);
    object.number("bytes_sent", finished.sent);
    object.seconds("duration", finished.duration.as_micros());
    if let Some(first_byte) = finished.first_byte {
        object.seconds("time_to_first_byte", first_byte.as_micros());
    }
    object.text("outcome", Some(finished.outcome.label().as_bytes()));
    if let Outcome::Refused(why) = finished.outcome {
        object.text("refused", Some(why.label().as_bytes()));
    }
    object.text("request_id", finished.id.map(HeaderValue::as_bytes));
    if let Some((trace, parent)) = details.traceparent().and_then(request_id::trace) {
        object.text("trace_id", Some(trace));
        object.text("parent_id", Some(parent));
    }
    object.text("referer", details.referer());
    object.text("user_agent", details.user_agent());
    if connection.secure {
        object.text("tls_version", connection.tls_version.map(str::as_bytes));
        object.text("tls_cipher", connection.cipher.map(str::as_bytes));
        object.text("tls_server_name", connection.sni.as_deref().map(str::as_bytes));
        object.key("tls_resumed").extend_from_slice(if connection.resumed { b"true" } else { b"false" });
    }
    line.push(b'}');
}

struct Object<'a> {
    line: &'a mut Vec<u8>,
    first: bool,
}

impl Object<'_> {
    /// Begins an entry; its value is to follow.
    fn key(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.line.push(if std::mem::take(&mut self.first) { b'{' } else { b',' });
        self.line.push(b'"');
        self.line.extend_from_slice(name.as_bytes());
        self.line.extend_from_slice(b"\":");
        self.line
    }

    fn number(&mut self, name: &'static str, value: u64) {
        number(self.key(name), value);
    }

    fn seconds(&mut self, name: &'static str, micros: u128) {
        // Writing to a Vec cannot fail.
        let _ = write!(self.key(name), "{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    }

    /// An entry only where there is a value.
    fn text(&mut self, name: &'static str, value: Option<&[u8]>) {
        let Some(value) = value else { return };
        let line = self.key(name);
        line.push(b'"');
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
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

fn escape(line: &mut Vec<u8>, text: &[u8], escaped: fn(&mut Vec<u8>, u8)) {
    let mut left = &text[..text.len().min(LONGEST)];
    // Most are plain, which is seen sixteen bytes at once where nothing ends the loop early.
    if left.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        line.extend_from_slice(left);
        left = &[];
    }
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

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2.0",
        _ => b"HTTP/1.1",
    }
}

/// Without the port; an IPv4 client of an IPv6 socket as the IPv4 client that it is.
fn address(line: &mut Vec<u8>, peer: &Address) {
    let Address::Inet(peer) = peer else { return line.extend_from_slice(b"unix:") };
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    line.push(b'.');
                }
                number(line, octet.into());
            }
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

/// A moment, always in UTC.
fn date(line: &mut Vec<u8>, at: Instant, form: Date) {
    thread_local! {
        static CLOCK_HERE: RefCell<Option<Clock>> = const { RefCell::new(None) };
    }
    CLOCK_HERE.with_borrow_mut(|known| {
        let is_new = |clock: &&mut Clock| at.checked_duration_since(clock.looked.0).is_some_and(|age| age < CLOCK);
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
        let since = match at.checked_duration_since(*then) {
            Some(after) => *time + after,
            None => time.saturating_sub(then.duration_since(at)),
        };
        write_date(line, since, form, last);
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
        // Writing to a Vec cannot fail.
        Date::Rfc3339 => drop(write!(line, ".{:03}Z", since.subsec_millis())),
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
