//! One request from bytes alone, by the machine that reads those of connections.

use std::time::Instant;

use super::{Event, Limits, Machine};
use crate::error::RequestError;
use crate::http::Request;
use crate::http::body::Collected;

/// Why bytes are not one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unparsed {
    /// They are the beginning of one: more are needed.
    Incomplete,
    /// They are none that this server would accept.
    Refused(RequestError),
    /// A request ends after so many of them, and there are more.
    Longer(usize),
}

/// Parses the bytes of exactly one request.
///
/// # Errors
/// See [`Unparsed`].
pub fn parse_request(bytes: &[u8], limits: Limits) -> Result<Request, Unparsed> {
    let now = Instant::now();
    let mut machine = Machine::new(limits, now);
    machine.receive(bytes, now);
    let (mut head, mut body) = (None, Collected::default());
    loop {
        match machine.next_event(now).map_err(Unparsed::Refused)? {
            Event::Request(new) => head = Some(new),
            Event::Body(data) => body.push(data),
            Event::EndOfBody if machine.buffered() > 0 => {
                return Err(Unparsed::Longer(bytes.len() - machine.buffered()));
            }
            Event::EndOfBody => {
                let Some(head) = head else { return Err(Unparsed::Incomplete) };
                return Ok(Request { body: body.finish(), ..Request::from(*head) });
            }
            Event::NeedMore | Event::End { .. } => return Err(Unparsed::Incomplete),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::error::Refusal;

    fn parse(text: &str) -> Result<Request, Unparsed> {
        parse_request(text.as_bytes(), Limits::from(&Config::default()))
    }

    #[test]
    fn a_request_is_exactly_its_bytes() {
        let text = "POST /a?b=c HTTP/1.1\r\nHost: x.test\r\nContent-Length: 3\r\n\r\nabc";
        let request = parse(text).unwrap();
        assert_eq!((request.url().as_str(), &request.body[..]), ("http://x.test/a?b=c", &b"abc"[..]));
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]).unwrap_err(), Unparsed::Incomplete, "{cut}");
        }
        assert_eq!(parse(&format!("{text}GET")).unwrap_err(), Unparsed::Longer(text.len()));
    }

    #[test]
    fn what_the_server_refuses_is_refused() {
        let refused = |text| match parse(text).unwrap_err() {
            Unparsed::Refused(error) => error.refusal,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), Refusal::Host);
        assert_eq!(refused("GET / HTTP/1.1\nHost: a\n\n"), Refusal::RequestLine);
    }

    #[test]
    fn without_a_host_the_url_is_the_path() {
        assert_eq!(parse("GET /a?b HTTP/1.0\r\n\r\n").unwrap().url(), "/a?b");
    }
}
