//! A record on one line, for people.

use std::fmt;
use std::time::UNIX_EPOCH;

use time::OffsetDateTime;

use super::{Record, Value};

impl fmt::Display for Record {
    /// Time (UTC), connection and request, milliseconds since the connection was accepted, what happened, and its details:
    /// `12:00:00.000123  #1.3         1.234 ms  response          status=200 length=2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = UNIX_EPOCH.checked_add(since).map_or(OffsetDateTime::UNIX_EPOCH, OffsetDateTime::from);
        let (hour, minute, second, micro) = time.to_hms_micro();
        let whose = match (self.connection, self.stream) {
            (Some(connection), Some(stream)) => format!("#{connection}.{stream}"),
            (Some(connection), None) => format!("#{connection}"),
            (None, _) => "-".into(),
        };
        let (elapsed, name) = (self.elapsed * 1e3, self.event.name());
        write!(f, "{hour:02}:{minute:02}:{second:02}.{micro:06}  {whose:<8} {elapsed:>11.3} ms  {name}")?;
        let mut gap = 17usize.saturating_sub(name.len());
        for (key, value) in self.event.clone().details() {
            if value == Value::Nothing {
                continue;
            }
            write!(f, "{:gap$} {key}=", "")?;
            gap = 0;
            match value {
                Value::Nothing => {}
                Value::Flag(flag) => f.write_str(if flag { "yes" } else { "no" })?,
                Value::Number(number) => write!(f, "{number}")?,
                Value::Seconds(seconds) => write!(f, "{seconds:.6}")?,
                Value::Text(text) => write_text(f, &text)?,
            }
        }
        Ok(())
    }
}

/// In quotes, where it could be taken for something else: what a peer sends may be made to look like another line.
fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
    let is_target = text.starts_with('/') && text.bytes().all(|byte| is_plain(byte) || byte == b'=');
    if is_target || (!text.is_empty() && text.bytes().all(is_plain)) {
        f.write_str(text)
    } else {
        write!(f, "{text:?}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::trace::Event;

    fn line(event: Event, stream: Option<u32>) -> String {
        let time = UNIX_EPOCH + Duration::from_micros(3_661_000_007);
        Record { connection: Some(12), stream, elapsed: 0.001_234_5, time, event }.to_string()
    }

    #[test]
    fn records_are_lines_in_columns() {
        let response = Event::Response { status: 200, length: None };
        assert_eq!(line(response, Some(3)), "01:01:01.000007  #12.3          1.234 ms  response          status=200");
        assert_eq!(line(Event::Draining {}, None), "01:01:01.000007  #12            1.234 ms  draining");
    }

    #[test]
    fn nobody_can_make_a_line_of_their_own() {
        let host = "a b\n00:00:00 \u{1b}[31m\u{202e}\"x".into();
        let request = Event::Request { method: "GET".into(), target: "/?a=b".into(), version: "HTTP/1.1", host };
        let line = line(request, Some(1));
        assert!(line.chars().all(|it| matches!(it, ' '..='~')), "{line}");
        assert!(line.contains("target=/?a=b version=HTTP/1.1 host=\"a b\\n00"), "{line}");
    }
}
