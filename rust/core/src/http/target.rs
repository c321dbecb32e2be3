//! Request targets and hosts (RFC 9112 section 3.2, RFC 3986): what was asked for, and of whom.

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;
use percent_encoding::percent_decode;

use crate::error::{Refusal, RequestError};

/// A request target, split but not decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    text: Bytes,
    path: (usize, usize),
    query: Option<usize>,
    host: Option<(usize, usize)>,
}

impl Target {
    /// Splits the target of a request line.
    ///
    /// # Errors
    /// [`Refusal::RequestLine`] for a form that does not belong to the method, [`Refusal::Host`] for a malformed
    /// authority, [`Refusal::NotImplemented`] for `CONNECT`: this is no proxy.
    pub fn parse(method: &Method, text: Bytes) -> Result<Self, RequestError> {
        if method == Method::CONNECT {
            return Err(RequestError::new(Refusal::NotImplemented, "CONNECT: this server is no proxy"));
        }
        // Visible ASCII only (RFC 3986 section 2), and no fragment, which is never sent.
        if let Some(odd) = text.iter().find(|byte| !matches!(byte, 0x21..=0x7e) || **byte == b'#') {
            let message = format!("byte {odd:#04x} in the request target: percent-encode it");
            return Err(RequestError::new(Refusal::RequestLine, message));
        }
        let len = text.len();
        if text.starts_with(b"/") {
            let query = memchr::memchr(b'?', &text);
            check_path(&text[..query.unwrap_or(len)])?;
            return Ok(Target { path: (0, query.unwrap_or(len)), query: query.map(|at| at + 1), host: None, text });
        }
        if &text[..] == b"*" && method == Method::OPTIONS {
            return Ok(Target { path: (0, 1), query: None, host: None, text });
        }
        let scheme = ["http://", "https://"]
            .into_iter()
            .find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes())));
        let Some(scheme) = scheme else {
            let message = "the request target is neither a path nor a whole http URL";
            return Err(RequestError::new(Refusal::RequestLine, message));
        };
        let start = scheme.len();
        let end = start + memchr::memchr2(b'/', b'?', &text[start..]).unwrap_or(len - start);
        check_host(&text[start..end])?;
        let query = memchr::memchr(b'?', &text[end..]).map(|at| end + at);
        check_path(&text[end..query.unwrap_or(len)])?;
        Ok(Target { path: (end, query.unwrap_or(len)), query: query.map(|at| at + 1), host: Some((start, end)), text })
    }

    /// The path as it came, percent-encoded; `/` where the target has none, `*` for `OPTIONS *`.
    pub fn raw_path(&self) -> &str {
        match self.str(self.path.0, self.path.1) {
            "" => "/",
            path => path,
        }
    }

    /// The same, shared.
    pub(crate) fn path_bytes(&self) -> Bytes {
        match self.path {
            (start, end) if start == end => Bytes::from_static(b"/"),
            (start, end) => self.text.slice(start..end),
        }
    }

    /// All of it, as it came, shared.
    pub(crate) fn whole(&self) -> Bytes {
        self.text.clone()
    }

    /// What follows the `?`, as it came; empty where there is none.
    pub fn query(&self) -> &str {
        self.query.map_or("", |at| self.str(at, self.text.len()))
    }

    /// The authority of an absolute target, which overrides `Host` (RFC 9112 section 3.2.2).
    pub fn host(&self) -> Option<&str> {
        self.host.map(|(start, end)| self.str(start, end))
    }

    fn str(&self, start: usize, end: usize) -> &str {
        std::str::from_utf8(self.text.get(start..end).unwrap_or_default()).unwrap_or_default()
    }
}

/// A backslash is no part of a path: some read it as a slash, as browsers do before they send it.
fn check_path(path: &[u8]) -> Result<(), RequestError> {
    match memchr::memchr(b'\\', path) {
        None => Ok(()),
        Some(_) => Err(RequestError::new(Refusal::RequestLine, "a backslash in the path: percent-encode it")),
    }
}

/// Decodes a path and removes its dot segments (RFC 3986 section 5.2.4), in this order, so that an encoded
/// slash or dot cannot smuggle one in.
pub fn decode_path(raw: &str) -> Cow<'_, [u8]> {
    let decoded = Cow::from(percent_decode(raw.as_bytes()));
    if memchr::memmem::find(&decoded, b"/.").is_none() {
        return decoded;
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = decoded.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    kept.pop();
                }
                if last {
                    kept.push(b"");
                }
            }
            _ => kept.push(segment),
        }
    }
    let mut path = Vec::with_capacity(decoded.len());
    for segment in kept {
        path.push(b'/');
        path.extend_from_slice(segment);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Cow::Owned(path)
}

/// Decodes `a=1&b=2` as forms are encoded: `+` is a space, `%xx` a byte, what is not UTF-8 becomes U+FFFD.
pub fn parse_query(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into_owned(), value.into_owned()))
}

/// Checks the authority of a request: a host and at most a port, no user (RFC 9110 section 4.2.4).
///
/// # Errors
/// [`Refusal::Host`].
pub fn check_host(host: &[u8]) -> Result<(), RequestError> {
    let malformed = || RequestError::new(Refusal::Host, "the host is empty or malformed");
    let (name, port) = split_port(host);
    let name_ok = match name {
        [b'[', inside @ .., b']'] => {
            std::str::from_utf8(inside).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
        }
        // reg-name without percent-encoding: what DNS names and IPv4 addresses are made of, and `_`.
        _ => !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(b)),
    };
    let number = |port: &[u8]| port.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    let port_ok = port.is_none_or(|port| {
        port.len() <= 5 && port.iter().all(u8::is_ascii_digit) && number(port) <= u32::from(u16::MAX)
    });
    if name_ok && port_ok { Ok(()) } else { Err(malformed()) }
}

/// Splits `host:port`; the brackets of an IPv6 address stay on the host.
pub fn split_port(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    let after_bracket = memchr::memrchr(b']', host).map_or(0, |at| at + 1);
    match memchr::memchr(b':', &host[after_bracket..]) {
        Some(at) => (&host[..after_bracket + at], Some(&host[after_bracket + at + 1..])),
        None => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, RequestError> {
        Target::parse(&Method::GET, Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn origin_and_absolute_forms() {
        let target = parse("/a/b?x=1?2").unwrap();
        assert_eq!((target.raw_path(), target.query(), target.host()), ("/a/b", "x=1?2", None));
        let target = parse("HTTP://example.com:8443/p?q").unwrap();
        assert_eq!((target.raw_path(), target.query(), target.host()), ("/p", "q", Some("example.com:8443")));
        let target = parse("https://example.com?q").unwrap();
        assert_eq!((target.raw_path(), target.query()), ("/", "q"));
        assert_eq!(parse("/{a}\"b\"|c").unwrap().raw_path(), "/{a}\"b\"|c");
        assert_eq!(parse("/a?b\\c").unwrap().query(), "b\\c");
    }

    #[test]
    fn forms_that_do_not_belong() {
        for text in [
            "*",
            "example.com:443",
            "ftp://example.com/",
            "a",
            "",
            "/#f",
            "/\u{e9}",
            "http://",
            "http://u@h/",
            "/a\\b",
            "http://h/a\\b",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let refusal = Target::parse(&Method::CONNECT, Bytes::from_static(b"h:443")).unwrap_err().refusal;
        assert_eq!(refusal, Refusal::NotImplemented);
        assert_eq!(Target::parse(&Method::OPTIONS, Bytes::from_static(b"*")).unwrap().raw_path(), "*");
    }

    #[test]
    fn paths_lose_dot_segments_however_written() {
        for (raw, path) in [
            ("/a/b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../../etc", "/etc"),
            ("/a/%2e%2e%2fetc", "/etc"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/.hidden/..x", "/.hidden/..x"),
            ("/%61%20b%C3%A9", "/a b\u{e9}"),
            ("/%ff", "/\u{fffd}"),
            ("/a/%c3/../b", "/a/b"),
            ("/.", "/"),
            ("*", "*"),
            ("//x/../y", "//y"),
        ] {
            assert_eq!(String::from_utf8_lossy(&decode_path(raw)), path, "{raw}");
        }
    }

    #[test]
    fn hosts() {
        for good in ["a", "example.com", "example.com:", "a:65535", "127.0.0.1:80", "[::1]", "[::1]:8443", "a_b.test"] {
            assert!(check_host(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in
            ["", ":80", "a b", "a/b", "u@h", "a:b", "a:1:2", "[::1", "[zz]", "a:123456", "a:65536", "h\u{e9}", "a,b"]
        {
            assert!(check_host(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
