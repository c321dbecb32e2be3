//! Trailers: fields behind a body (RFC 9110 section 6.5).

use http::header::{HeaderName, HeaderValue};

use super::response::MAX_HEADERS;
use crate::error::Error;

/// What no trailer may be (RFC 9110 section 6.5.1): framing, routing, what the body is, who asks and on which terms. Where
/// another server merges them into the head, they change what the message means.
const NEVER: [&str; 18] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "proxy-authorization",
    "range",
    "transfer-encoding",
    "upgrade",
];

/// Nor one of a response: what says how to take it, which comes too late behind it, and what is one connection's.
const NEVER_IN_RESPONSES: [&str; 18] = [
    "age",
    "cache-control",
    "date",
    "expires",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-connection",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "vary",
    "warning",
    "www-authenticate",
];

/// Whether a request or a response has a field of that name before its body or not at all; in any case of letters.
pub(crate) fn is_never_one(name: &str) -> bool {
    NEVER.iter().any(|never| name.eq_ignore_ascii_case(never))
}

/// The trailers of a response: none that RFC 9110 forbids.
#[derive(Debug, Default)]
pub struct Trailers(Vec<(HeaderName, HeaderValue)>);

impl Trailers {
    /// Adds one.
    ///
    /// # Errors
    /// [`Error::Response`]: it belongs into the head, or there are too many; then it is not added.
    pub fn push(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Error> {
        if is_never_one(name.as_str()) || NEVER_IN_RESPONSES.contains(&name.as_str()) {
            return Err(Error::Response(format!(
                "trailer {name}: it has no meaning behind a body (RFC 9110 section 6.5.1); send it as a header"
            )));
        }
        self.0.push((name, value));
        self.check_number().inspect_err(|_| drop(self.0.pop()))
    }

    /// Adds those of another message.
    ///
    /// # Errors
    /// [`Error::Response`]: there are too many; then none is added.
    pub fn append(&mut self, mut more: Trailers) -> Result<(), Error> {
        let before = self.0.len();
        self.0.append(&mut more.0);
        self.check_number().inspect_err(|_| self.0.truncate(before))
    }

    fn check_number(&self) -> Result<(), Error> {
        if self.0.len() > MAX_HEADERS {
            return Err(Error::Response(format!("more than {MAX_HEADERS} trailers")));
        }
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order in which they are sent.
    pub fn iter(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.0.iter()
    }

    /// Keeps those for which `keep` says so, which may change their values.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&mut (HeaderName, HeaderValue)) -> bool) {
        self.0.retain_mut(keep);
    }
}

impl IntoIterator for Trailers {
    type Item = (HeaderName, HeaderValue);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_into_the_head_is_no_trailer() {
        let mut trailers = Trailers::default();
        for name in NEVER.iter().chain(&NEVER_IN_RESPONSES) {
            let pushed = trailers.push(HeaderName::from_static(name), HeaderValue::from_static("x"));
            assert!(pushed.is_err(), "{name}");
        }
        assert!(trailers.is_empty());
        for name in ["server-timing", "content-digest", "etag", "x-checksum", "grpc-status"] {
            trailers.push(HeaderName::from_static(name), HeaderValue::from_static("x")).unwrap();
        }
        assert_eq!(trailers.iter().count(), 5);
    }

    #[test]
    fn they_are_bounded() {
        let mut trailers = Trailers::default();
        let push = |trailers: &mut Trailers| trailers.push(HeaderName::from_static("x"), HeaderValue::from_static("y"));
        assert!((0..MAX_HEADERS).all(|_| push(&mut trailers).is_ok()));
        let mut more = Trailers::default();
        push(&mut more).unwrap();
        assert!(trailers.append(more).is_err());
        assert_eq!(trailers.iter().count(), MAX_HEADERS);
        assert!(push(&mut trailers).is_err());
    }
}
