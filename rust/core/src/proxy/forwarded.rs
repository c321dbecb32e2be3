//! What proxies for HTTP tell of a request in its headers: `Forwarded` (RFC 7239), or the `X-Forwarded-` ones.
//!
//! Each proxy adds the client that it sees at the end, so they are read from there: as long as that is another trusted
//! proxy, what stands before it is believed. What stands before the first address that is none is the client's own, and may
//! be anything; it is not looked at.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::trust::Proxies;
use crate::http::headers::Headers;
use crate::http::target::check_host;

/// Which headers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `Forwarded`.
    Forwarded,
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`.
    XForwarded,
}

impl Style {
    /// Their names in the setting `forwarded`.
    pub(crate) const WORDS: &[&str] = &["off", "forwarded", "x-forwarded"];

    pub(crate) fn named(word: &str) -> Option<Self> {
        match word {
            "forwarded" => Some(Style::Forwarded),
            "x-forwarded" => Some(Style::XForwarded),
            _ => None,
        }
    }
}

/// Whose headers are believed, and which.
#[derive(Debug, Clone)]
pub struct Forwarding {
    /// Which.
    pub style: Style,
    /// Whose.
    pub proxies: Arc<Proxies>,
}

/// What trusted proxies tell of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// The client's address, the port 0 where it is not told. None where it is hidden, or no address.
    pub client: Option<SocketAddr>,
    /// Whether the client spoke TLS.
    pub secure: Option<bool>,
    /// The host that it asked for, with the port where that was told with it.
    pub host: Option<String>,
    /// The port that it connected to.
    pub port: Option<u16>,
}

impl Forwarding {
    /// Reads the headers of a request that came from a trusted proxy; none where there are none.
    pub fn read(&self, headers: &Headers) -> Option<Told> {
        match self.style {
            Style::Forwarded => self.forwarded(headers),
            Style::XForwarded => self.x_forwarded(headers),
        }
    }

    fn is_proxy(&self, client: Option<SocketAddr>) -> bool {
        client.is_some_and(|client| self.proxies.has_ip(client.ip()))
    }

    /// Of each thing the proxy that is the furthest away tells, of those that tell it.
    fn forwarded(&self, headers: &Headers) -> Option<Told> {
        let mut told = None;
        for element in from_end(headers, "forwarded", quoted_list) {
            let known: &mut Told = told.get_or_insert_default();
            let hop = Hop::parse(element).unwrap_or_default();
            known.client = hop.client;
            known.secure = hop.secure.or(known.secure);
            known.host = hop.host.or(known.host.take());
            if !self.is_proxy(known.client) {
                break;
            }
        }
        told
    }

    fn x_forwarded(&self, headers: &Headers) -> Option<Told> {
        let (mut told, mut hops) = (Told::default(), 0);
        for element in from_end(headers, "x-forwarded-for", list) {
            hops += 1;
            told.client = node(element);
            if !self.is_proxy(told.client) {
                break;
            }
        }
        // These are lists too where every proxy adds its own, else the word of one of them.
        let value = |name: &'static str| from_end(headers, name, list).take(hops.max(1)).last();
        let [scheme, host, port] = ["x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"].map(value);
        if hops == 0 && scheme.is_none() && host.is_none() && port.is_none() {
            return None;
        }
        told.secure = scheme.and_then(is_secure);
        told.host = host.and_then(host_text);
        told.port = port.and_then(number).filter(|port| *port != 0);
        Some(told)
    }
}

/// One element of `Forwarded`.
#[derive(Default)]
struct Hop {
    client: Option<SocketAddr>,
    secure: Option<bool>,
    host: Option<String>,
}

impl Hop {
    /// None for one that is malformed.
    fn parse(element: &[u8]) -> Option<Self> {
        let mut hop = Hop::default();
        let (mut seen, mut rest) = (Vec::with_capacity(4), element);
        while !rest.is_empty() {
            let (before, pair) = split_last(rest, b';');
            rest = before;
            let pair = pair.trim_ascii();
            if pair.is_empty() {
                continue;
            }
            let (name, value) = pair.split_at_checked(memchr::memchr(b'=', pair)?)?;
            let (name, value) = (name.to_ascii_lowercase(), unquote(&value[1..])?);
            // Each at most once (section 4); a few of those that are registered later are let pass.
            if seen.len() > 16 || seen.contains(&name) {
                return None;
            }
            match &name[..] {
                b"for" => hop.client = node(&value),
                b"proto" => hop.secure = is_secure(&value),
                b"host" => hop.host = host_text(&value),
                _ => {}
            }
            seen.push(name);
        }
        Some(hop)
    }
}

/// The elements of a header that is a list, from its end; empty ones are left out (RFC 9110 section 5.6.1).
fn from_end<'a, I: Iterator<Item = &'a [u8]>>(
    headers: &'a Headers,
    name: &'a str,
    split: fn(&'a [u8]) -> I,
) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).rev().flat_map(split).map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

fn list(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.rsplit(|byte| *byte == b',')
}

fn quoted_list(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest.take()?;
        let (before, last) = split_last(line, b',');
        rest = (last.len() < line.len()).then_some(before);
        Some(last)
    })
}

/// What stands behind the last separator outside of quotes, and what stands before it.
///
/// Seen from the end, what a proxy has added is read as it was meant, whatever quotes a client has left open before it.
fn split_last(line: &[u8], separator: u8) -> (&[u8], &[u8]) {
    let mut quoted = false;
    for (at, byte) in line.iter().enumerate().rev() {
        match byte {
            // A quote with an odd number of backslashes before it is part of what is quoted.
            b'"' if !quoted || backslashes(&line[..at]).is_multiple_of(2) => quoted = !quoted,
            _ if *byte == separator && !quoted => return (&line[..at], &line[at + 1..]),
            _ => {}
        }
    }
    (&[], line)
}

fn backslashes(before: &[u8]) -> usize {
    before.iter().rev().take_while(|byte| **byte == b'\\').count()
}

/// A token, or a quoted string (RFC 9110 sections 5.6.2 and 5.6.4). Colons and brackets are let pass without quotes, as many
/// write them.
fn unquote(value: &[u8]) -> Option<Vec<u8>> {
    let Some(inside) = value.strip_prefix(b"\"") else {
        let odd = |byte: &u8| !byte.is_ascii_graphic() || b"\"\\,;=".contains(byte);
        return (!value.is_empty() && !value.iter().any(odd)).then(|| value.to_vec());
    };
    let (mut text, mut bytes) = (Vec::with_capacity(inside.len()), inside.iter());
    loop {
        match bytes.next()? {
            b'"' => return bytes.next().is_none().then_some(text),
            b'\\' => text.push(*bytes.next()?),
            byte => text.push(*byte),
        }
    }
}

/// An IP address, maybe with a port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`, also without the brackets. None for
/// `unknown`, for names that hide one (RFC 7239 section 6), and for everything else.
fn node(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip.to_canonical(), 0));
    }
    let (ip, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, rest) = rest.split_once(']')?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            (IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?), port)
        }
        None => {
            let (ip, port) = text.split_once(':')?;
            (ip.parse().ok()?, Some(port))
        }
    };
    let port = match port {
        None => 0,
        // A hidden one.
        Some(port) if port.starts_with('_') => 0,
        Some(port) => number(port.as_bytes())?,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

fn number(text: &[u8]) -> Option<u16> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Whether it is a scheme with TLS; some proxies write those of WebSockets.
fn is_secure(scheme: &[u8]) -> Option<bool> {
    match &scheme.to_ascii_lowercase()[..] {
        b"https" | b"wss" => Some(true),
        b"http" | b"ws" => Some(false),
        _ => None,
    }
}

fn host_text(host: &[u8]) -> Option<String> {
    check_host(host).ok()?;
    String::from_utf8(host.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(style: Style, lines: &[(&str, &str)]) -> Option<Told> {
        let mut map = http::HeaderMap::new();
        for (name, value) in lines {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
        let proxies = Proxies::parse(["10.0.0.0/8", "fd00::/8"]).unwrap();
        Forwarding { style, proxies: Arc::new(proxies) }.read(&Headers::from_map(None, &map))
    }

    fn forwarded(value: &str) -> Told {
        read(Style::Forwarded, &[("forwarded", value)]).unwrap()
    }

    fn client(told: &Told) -> Option<String> {
        told.client.map(|client| client.to_string())
    }

    #[track_caller]
    fn is(told: &Told, expected: &str) {
        assert_eq!(client(told).as_deref().unwrap_or("hidden"), expected);
    }

    #[test]
    fn one_proxy_tells_everything() {
        let told = forwarded("for=192.0.2.1;proto=https;host=example.com:8443;by=10.0.0.1");
        is(&told, "192.0.2.1:0");
        assert_eq!((told.secure, told.host.as_deref()), (Some(true), Some("example.com:8443")));
        is(&forwarded(r#"For="[2001:db8::1]:4711""#), "[2001:db8::1]:4711");
        is(&forwarded("FOR=192.0.2.1:80 ; Proto=HTTP"), "192.0.2.1:80");
        assert_eq!(forwarded("for=192.0.2.1;proto=ftp;host=\"a b\"").secure, None);
        assert_eq!(forwarded("for=192.0.2.1;host=\"a b\"").host, None);
        assert_eq!(read(Style::Forwarded, &[("x-forwarded-for", "192.0.2.1")]), None);
    }

    #[test]
    fn the_walk_ends_at_the_first_who_is_no_proxy() {
        is(&forwarded("for=1.1.1.1, for=192.0.2.1, for=10.0.0.2"), "192.0.2.1:0");
        is(&forwarded("for=10.0.0.9, for=10.0.0.2"), "10.0.0.9:0");
        let lines =
            [("forwarded", "for=1.1.1.1"), ("forwarded", "for=192.0.2.1;proto=https"), ("forwarded", "for=10.0.0.2")];
        let told = read(Style::Forwarded, &lines).unwrap();
        is(&told, "192.0.2.1:0");
        assert_eq!(told.secure, Some(true));
        // Of the client's own part nothing counts.
        let told =
            forwarded("for=10.0.0.1;proto=https;host=evil.test, for=192.0.2.1, for=10.0.0.2;proto=http;host=a.test");
        is(&told, "192.0.2.1:0");
        assert_eq!((told.secure, told.host.as_deref()), (Some(false), Some("a.test")));
        let told = forwarded("for=192.0.2.1;host=b.test;proto=https, for=10.0.0.2;host=a.test;proto=http");
        assert_eq!((told.secure, told.host.as_deref()), (Some(true), Some("b.test")));
        let ten_thousand = vec!["for=10.0.0.2"; 10_000].join(",");
        is(&forwarded(&format!("for=192.0.2.1,{ten_thousand}")), "192.0.2.1:0");
    }

    #[test]
    fn who_is_hidden_is_nobody() {
        for value in [
            "for=unknown",
            "for=_hidden",
            "for=_SEVKISEK:80",
            "proto=https",
            "for=192.0.2.1;for=10.0.0.1",
            "for",
            "for=",
            "for=\"192.0.2.1",
            "for=\"192.0.2.1\"x",
            "for=192.0.2.1:99999",
            "for=192.0.2.1:+1",
            "for=[::1",
            "for=\"[fe80::1%eth0]\"",
            "for=300.0.0.1",
            "for=192.0.2.1, for=unknown, for=10.0.0.1",
            "for=192.0.2.1, \u{fffd}, for=10.0.0.1",
            "=;=;=",
            ";;;",
            "\"",
        ] {
            is(&forwarded(value), "hidden");
        }
        is(&forwarded("for=192.0.2.1:_x, ,"), "192.0.2.1:0");
        // Nothing at all is not the same as something that is not understood.
        assert_eq!(read(Style::Forwarded, &[("forwarded", ""), ("forwarded", ", ,")]), None);
    }

    #[test]
    fn quotes_that_a_client_leaves_open_hide_nothing_behind_them() {
        for evil in [r#"for=""#, r#"for="x, for=10.0.0.1"#, r#"for="\"#, r#"for="\""#, r#"\"\"\""#, r#"for="a\\"#] {
            is(&forwarded(&format!("{evil}, for=192.0.2.1;host=\"a.test\"")), "192.0.2.1:0");
        }
        is(&forwarded(r#"for=192.0.2.1;x="a,b;c=\"d\\";proto=http"#), "192.0.2.1:0");
    }

    #[test]
    fn x_forwarded() {
        let read = |lines: &[(&str, &str)]| read(Style::XForwarded, lines);
        let told = read(&[
            ("x-forwarded-for", "6.6.6.6, 192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "example.com"),
            ("x-forwarded-port", "8443"),
        ])
        .unwrap();
        is(&told, "192.0.2.1:0");
        assert_eq!((told.secure, told.host.as_deref(), told.port), (Some(true), Some("example.com"), Some(8443)));
        for (value, expected) in [
            ("192.0.2.1:123", "192.0.2.1:123"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
            ("::ffff:192.0.2.1", "192.0.2.1:0"),
            ("192.0.2.1, fd00::1,10.0.0.1 ", "192.0.2.1:0"),
            ("unknown", "hidden"),
            ("192.0.2.1, \u{e9}", "hidden"),
        ] {
            is(&read(&[("x-forwarded-for", value)]).unwrap(), expected);
        }
        assert_eq!(read(&[("forwarded", "for=192.0.2.1")]), None);
        let told =
            read(&[("x-forwarded-proto", "wss"), ("x-forwarded-port", "0"), ("x-forwarded-host", "a/b")]).unwrap();
        assert_eq!(told, Told { secure: Some(true), ..Told::default() });
    }

    #[test]
    fn where_every_proxy_adds_its_own_the_one_that_saw_the_client_counts() {
        for (addresses, schemes, secure) in [
            ("192.0.2.1", "https, http", Some(false)),
            ("192.0.2.1, 10.0.0.1", "https, http", Some(true)),
            ("192.0.2.1, 10.0.0.1", "http, https, http", Some(true)),
            ("192.0.2.1, 10.0.0.1", "https", Some(true)),
        ] {
            let told = read(Style::XForwarded, &[("x-forwarded-for", addresses), ("x-forwarded-proto", schemes)]);
            assert_eq!(told.unwrap().secure, secure, "{addresses} {schemes}");
        }
    }
}
