//! A request as handlers see it: parsed parts, everything else derived when asked for.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use encoding_rs::{Encoding, UTF_8};
use http::{HeaderValue, Method, Version};

use super::body::Incoming;
use super::headers::Headers;
use super::target::{self, Target};
use crate::connection::{Address, ConnectionInfo};
use crate::proxy::Told;
use crate::request_id;

/// One request. Its body is here, or comes while its handler runs.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method, as it came.
    pub method: Method,
    /// What was asked for.
    pub target: Target,
    /// HTTP/1.0, HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// The header lines.
    pub headers: Headers,
    /// The whole body; empty where there was none, and where it is still coming.
    pub body: Bytes,
    /// The body that is still coming; only for handlers that take it so, see [`crate::Handler::streams`].
    pub incoming: Option<Incoming>,
    /// The connection on which it came; none where only its bytes were parsed.
    pub connection: Option<Arc<ConnectionInfo>>,
    /// What it is called, where requests have ids: the setting `request_id_header`.
    pub id: Option<HeaderValue>,
    /// What routers found in the path; none where they found nothing.
    pub(crate) route: Option<Box<Route>>,
    /// See [`Request::route_pattern`].
    pub(crate) pattern: Option<Arc<str>>,
    /// What trusted proxies tell in its headers, once it was asked for.
    pub(crate) told: OnceLock<Option<Box<Told>>>,
    /// It is an extended CONNECT for a WebSocket (RFC 8441), which is a `GET` for everybody else.
    pub(crate) tunnel: bool,
}

/// What routers found in the path of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Route {
    /// The parameters of their patterns, decoded, in the order of the path.
    pub(crate) parameters: Vec<(Arc<str>, String)>,
    /// How much of the decoded path is the prefix at which the one who answers is mounted.
    pub(crate) root: usize,
    /// The same of the path in the form in which it is matched.
    pub(crate) matched: usize,
    /// See [`Request::missed`].
    pub(crate) missed: Option<String>,
}

impl Request {
    /// Host and port as they came on this connection, by which its answerer is found; empty for HTTP/1.0 without `Host`.
    pub fn host(&self) -> &str {
        let from_header = || self.headers.get("host").and_then(|value| std::str::from_utf8(value).ok());
        self.target.host().or_else(from_header).unwrap_or_default()
    }

    /// What trusted proxies tell of it; none where they tell nothing, or are none.
    fn told(&self) -> Option<&Told> {
        let forwarding = self.connection.as_ref()?.forwarding.as_ref()?;
        self.told.get_or_init(|| forwarding.read(&self.headers).map(Box::new)).as_deref()
    }

    /// The client's address; its port is 0 where a proxy does not tell it. None on a Unix socket, without a connection, and
    /// where a proxy hides it.
    pub fn client(&self) -> Option<SocketAddr> {
        match (self.told(), &self.connection.as_ref()?.peer) {
            (Some(told), _) => told.client,
            (None, Address::Inet(address)) => Some(*address),
            (None, Address::Unix(_)) => None,
        }
    }

    /// `https` where the client speaks TLS, to this end or, as that tells, to a trusted proxy; else `http`.
    pub fn scheme(&self) -> &'static str {
        let told = self.told().and_then(|told| told.secure);
        let secure = told.or_else(|| Some(self.connection.as_ref()?.is_secure()));
        if secure.unwrap_or(false) { "https" } else { "http" }
    }

    /// Host and port as the client wrote them, as trusted proxies tell; else [`Request::host`]. A port that is empty, as it may
    /// be (RFC 3986 section 3.2.3), is left out.
    pub fn authority(&self) -> Cow<'_, str> {
        let told = self.told();
        let host = told.and_then(|told| told.host.as_deref()).unwrap_or_else(|| self.host());
        let host = host.strip_suffix(':').unwrap_or(host);
        let usual = if self.scheme() == "https" { 443 } else { 80 };
        match told.and_then(|told| told.port).filter(|port| *port != usual) {
            Some(port) if !host.is_empty() && target::split_port(host.as_bytes()).1.is_none() => {
                Cow::Owned(format!("{host}:{port}"))
            }
            _ => Cow::Borrowed(host),
        }
    }

    /// The port that the client connected to: where trusted proxies tell how it came to them, what they say; else that of this
    /// end. None on a Unix socket, and without a connection.
    pub fn port(&self) -> Option<u16> {
        let told = self.told().filter(|told| told.secure.is_some() || told.host.is_some() || told.port.is_some());
        if told.is_some() {
            let authority = self.authority();
            let written = target::split_port(authority.as_bytes()).1;
            let written = written.and_then(|port| std::str::from_utf8(port).ok()?.parse().ok());
            return written.or(Some(if self.scheme() == "https" { 443 } else { 80 }));
        }
        match &self.connection.as_ref()?.local {
            Address::Inet(address) => Some(address.port()),
            Address::Unix(_) => None,
        }
    }

    /// The whole URL; the host of HTTP/1.0 without `Host` is the address of this end. Without a connection the scheme is
    /// `http`, and without a host too there is no more than the path.
    pub fn url(&self) -> String {
        let connection = self.connection.as_ref();
        let scheme = self.scheme();
        let origin = match (&*self.authority(), connection) {
            ("", None) => String::new(),
            ("", Some(connection)) => format!("{scheme}://{}", connection.local),
            (host, _) => format!("{scheme}://{host}"),
        };
        let path = match self.target.raw_path() {
            "*" => "",
            path => path,
        };
        match self.target.query() {
            "" => format!("{origin}{path}"),
            query => format!("{origin}{path}?{query}"),
        }
    }

    /// The number of its connection; 0 without one.
    pub fn connection_id(&self) -> u64 {
        self.connection.as_ref().map_or(0, |connection| connection.id)
    }

    /// The whole path, decoded and without dot segments.
    pub fn whole_path_bytes(&self) -> Cow<'_, [u8]> {
        target::decode_path(self.target.raw_path())
    }

    /// The path below where the one who answers is mounted; empty where it is that very place.
    pub fn path_bytes(&self) -> Cow<'_, [u8]> {
        match (self.whole_path_bytes(), self.root()) {
            (whole, 0) => whole,
            (Cow::Borrowed(path), root) => Cow::Borrowed(path.get(root..).unwrap_or_default()),
            (Cow::Owned(path), root) => Cow::Owned(path.get(root..).unwrap_or_default().to_vec()),
        }
    }

    /// The same as text; what is not UTF-8 becomes U+FFFD, and an empty path is `/`.
    pub fn path(&self) -> Cow<'_, str> {
        match self.path_bytes() {
            path if path.is_empty() => Cow::Borrowed("/"),
            Cow::Borrowed(path) => String::from_utf8_lossy(path),
            Cow::Owned(path) => Cow::Owned(String::from_utf8_lossy(&path).into_owned()),
        }
    }

    /// The path before that, without a slash at its end; empty where nothing is mounted.
    pub fn root_path_bytes(&self) -> Vec<u8> {
        match self.root() {
            0 => Vec::new(),
            root => self.whole_path_bytes().get(..root).unwrap_or_default().to_vec(),
        }
    }

    fn root(&self) -> usize {
        self.route.as_ref().map_or(0, |route| route.root)
    }

    /// What routes' patterns took out of the path.
    pub fn path_parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let parameters = self.route.as_ref().map_or(&[][..], |route| &route.parameters);
        parameters.iter().map(|(name, value)| (&**name, value.as_str()))
    }

    /// The pattern of the route that led here, as it was written, with those of the mounts before it: `/shop/items/{id}`. None
    /// without a router, and where what answers is mounted at the root.
    pub fn route_pattern(&self) -> Option<&str> {
        self.pattern.as_deref().filter(|pattern| !pattern.is_empty())
    }

    /// The `traceparent` by which the client says what trace this request is part of, where it keeps to W3C Trace Context.
    pub fn traceparent(&self) -> Option<&str> {
        let mut given = self.headers.get_all("traceparent");
        let value = given.next().filter(|value| given.next().is_none() && request_id::trace(value).is_some())?;
        std::str::from_utf8(value).ok()
    }

    /// For whoever answers where a router has no route: the methods that there are for the path, as `Allow` lists them; empty
    /// where there are none. None where there was a route.
    pub fn missed(&self) -> Option<&str> {
        self.route.as_ref()?.missed.as_deref()
    }

    /// The body as text, by the charset of its content type, else UTF-8 (WHATWG Encoding); what does not decode becomes
    /// U+FFFD.
    pub fn text(&self) -> Cow<'_, str> {
        self.decode(&self.body)
    }

    /// The same of a body that has come since.
    pub fn decode<'a>(&self, body: &'a [u8]) -> Cow<'a, str> {
        let named = self.content_type().split(';').skip(1).find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
        });
        // An unknown charset is the client's mistake: UTF-8 shows most of what it meant.
        let encoding = named.and_then(|name| Encoding::for_label(name.as_bytes())).unwrap_or(UTF_8);
        encoding.decode_with_bom_removal(body).0
    }

    /// Whether a response to it may have trailers: its client has said that it takes them (RFC 9110 section 6.5.1), and there
    /// is a place for them.
    pub fn takes_trailers(&self) -> bool {
        let said = || self.headers.get_all("te").flat_map(|value| value.split(|&byte| byte == b','));
        self.version != Version::HTTP_10
            && self.method != Method::HEAD
            && said().any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    }

    /// The content type, empty where it is not given.
    pub fn content_type(&self) -> &str {
        self.headers.get("content-type").and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
    }

    /// `1.0`, `1.1` or `2`.
    pub fn version_text(&self) -> &'static str {
        match self.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        }
    }

    /// Names and values of the `Cookie` header (RFC 6265 section 5.4), quotes around a value removed. One without `=` is the
    /// value of a cookie without a name (RFC 6265bis section 5.8.3).
    pub fn cookies(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let pairs = self.headers.get_all("cookie").flat_map(|value| value.split(|&byte| byte == b';'));
        pairs.filter_map(|pair| {
            let pair = pair.trim_ascii();
            let (name, value) = match memchr::memchr(b'=', pair) {
                Some(at) => (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()),
                None if pair.is_empty() => return None,
                None => (&b""[..], pair),
            };
            Some((name, value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value)))
        })
    }
}
