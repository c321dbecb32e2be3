//! Which requests become a WebSocket, and what the others are answered (RFC 6455 section 4.2, RFC 8441 section 5).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64ct::{Base64, Encoding};
use http::header::{self, HeaderValue};
use http::{Method, StatusCode, Version};

use super::Options;
use super::deflate::Deflate;
use crate::http::{Headers, Request, Response};

/// RFC 6455 section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The only version there is (RFC 6455 section 4.1).
const VERSION: &str = "13";

/// A request that may become a WebSocket.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// The answer to the client's key; none in HTTP/2.
    accept: Option<HeaderValue>,
    /// The protocols that the client speaks, the preferred one first.
    offered: Vec<String>,
    origin: Option<String>,
    /// How the client and this server could compress messages.
    deflate: Option<Deflate>,
}

/// Why a request does not become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What it is answered.
    pub status: StatusCode,
    /// Why.
    pub reason: &'static str,
}

impl Refused {
    /// The setting `websocket` is off.
    pub const SWITCHED_OFF: Refused =
        Refused { status: StatusCode::NOT_IMPLEMENTED, reason: "the setting websocket is off" };

    fn new(status: StatusCode, reason: &'static str) -> Self {
        Refused { status, reason }
    }

    /// What the client is answered.
    pub fn response(self) -> Response {
        let response = Response::plain(self.status);
        match self.status {
            StatusCode::UPGRADE_REQUIRED => response
                .with(header::UPGRADE, "websocket")
                .with(header::CONNECTION, "upgrade")
                .with(header::SEC_WEBSOCKET_VERSION, VERSION),
            _ => response,
        }
    }
}

impl Handshake {
    /// Whether somebody wants a WebSocket, rightly or not.
    pub fn is_asked_for(request: &Request) -> bool {
        let named = |name, token| has_token(&request.headers, name, token);
        request.tunnel
            || (request.version == Version::HTTP_11 && named("upgrade", "websocket") && named("connection", "upgrade"))
    }

    /// Reads the request.
    ///
    /// # Errors
    /// It is none for a WebSocket, or a wrong one.
    pub fn read(request: &Request) -> Result<Self, Refused> {
        if !Handshake::is_asked_for(request) {
            return Err(Refused::new(StatusCode::UPGRADE_REQUIRED, "it is no request for a WebSocket"));
        }
        if request.method != Method::GET {
            return Err(Refused::new(StatusCode::BAD_REQUEST, "a WebSocket is asked for by GET"));
        }
        let headers = &request.headers;
        if single(headers, "sec-websocket-version").is_none_or(|version| version.trim_ascii() != VERSION.as_bytes()) {
            return Err(Refused::new(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version is not 13"));
        }
        let accept = if request.tunnel {
            None
        } else {
            let key = single(headers, "sec-websocket-key").map(<[u8]>::trim_ascii).filter(|key| is_key(key));
            let wrong = Refused::new(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64");
            Some(accept(key.ok_or(wrong)?).ok_or(wrong)?)
        };
        let offered = tokens(headers, "sec-websocket-protocol").map(|name| String::from_utf8_lossy(name).into_owned());
        let origin = headers.get("origin").map(|origin| String::from_utf8_lossy(origin).into_owned());
        let deflate = Deflate::from_offers(headers.get_all("sec-websocket-extensions"));
        Ok(Handshake { accept, offered: offered.collect(), origin, deflate })
    }

    /// The protocols that the client speaks, the preferred one first.
    pub fn offered(&self) -> &[String] {
        &self.offered
    }

    /// The protocol to speak: the first of the handler's that the client offers; none where there is none.
    ///
    /// # Errors
    /// The page that connects is of another origin than the handler allows.
    pub fn agree(&self, options: &Options) -> Result<Option<String>, Refused> {
        if let Some(allowed) = &options.origins {
            let is = |allowed: &Option<String>| match (allowed, &self.origin) {
                (None, None) => true,
                (Some(allowed), Some(origin)) => allowed.eq_ignore_ascii_case(origin),
                _ => false,
            };
            if !allowed.iter().any(is) {
                return Err(Refused::new(StatusCode::FORBIDDEN, "its origin is not allowed"));
            }
        }
        Ok(options.subprotocols.iter().find(|known| self.offered.contains(known)).cloned())
    }

    /// How messages are compressed, where both sides want that.
    pub(super) fn deflate(&self, options: &Options) -> Option<Deflate> {
        self.deflate.filter(|_| options.compression)
    }

    /// The response that makes it one, but for what follows it.
    pub(super) fn response(&self, subprotocol: Option<HeaderValue>, deflate: Option<Deflate>) -> Response {
        let mut response = Response::new(StatusCode::SWITCHING_PROTOCOLS, "").with(header::UPGRADE, "websocket");
        response.headers.extend(self.accept.clone().map(|accept| (header::SEC_WEBSOCKET_ACCEPT, accept)));
        response.headers.extend(subprotocol.map(|name| (header::SEC_WEBSOCKET_PROTOCOL, name)));
        response.headers.extend(deflate.map(|agreed| (header::SEC_WEBSOCKET_EXTENSIONS, agreed.header())));
        response
    }
}

/// The value of a header that may stand there once.
fn single<'a>(headers: &'a Headers, name: &'a str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name);
    let first = values.next();
    if values.next().is_some() { None } else { first }
}

fn tokens<'a>(headers: &'a Headers, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).flat_map(|value| value.split(|&byte| byte == b','));
    values.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

fn has_token(headers: &Headers, name: &str, token: &str) -> bool {
    tokens(headers, name).any(|given| given.eq_ignore_ascii_case(token.as_bytes()))
}

fn is_key(key: &[u8]) -> bool {
    let mut space = [0; 18];
    Base64::decode(key, &mut space).is_ok_and(|decoded| decoded.len() == 16)
}

fn accept(key: &[u8]) -> Option<HeaderValue> {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID.as_bytes()].concat());
    HeaderValue::from_str(&Base64::encode_string(hash.as_ref())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::parse_request;

    fn read(head: &str) -> Result<Handshake, StatusCode> {
        let limits = crate::http::h1::Limits::from(&crate::Config::default());
        let request = format!("{head}\r\nHost: a\r\n\r\n");
        let Ok(request) = parse_request(request.as_bytes(), limits) else { panic!("{head}") };
        Handshake::read(&request).map_err(|refused| refused.status)
    }

    const ASKED: &str = "GET / HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: a, b";

    #[test]
    fn the_example_of_the_rfc() {
        let handshake = read(ASKED).unwrap();
        assert_eq!(handshake.accept.unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(handshake.offered, ["a", "b"]);
    }

    #[test]
    fn what_is_refused() {
        let cases = [
            ("Upgrade: WebSocket", "Upgrade: h2c", 426),
            ("keep-alive, Upgrade", "keep-alive", 426),
            ("HTTP/1.1", "HTTP/1.0", 426),
            ("Version: 13", "Version: 8", 426),
            ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", 426),
            ("GET", "POST", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400),
            ("Sec-WebSocket-Key: ", "X-Key: ", 400),
        ];
        for (from, to, status) in cases {
            assert_eq!(read(&ASKED.replacen(from, to, 1)).unwrap_err().as_u16(), status, "{to}");
        }
    }

    #[test]
    fn protocols_and_origins() {
        let mut options = Options {
            subprotocols: vec!["c".into(), "b".into(), "a".into()],
            max_message_bytes: 1,
            ping_interval: None,
            idle_timeout: None,
            origins: None,
            compression: true,
        };
        let handshake = read(ASKED).unwrap();
        assert_eq!(handshake.agree(&options), Ok(Some("b".into())));
        options.origins = Some(vec![Some("https://a.test".into())]);
        assert_eq!(handshake.agree(&options).unwrap_err().status, StatusCode::FORBIDDEN);
        options.origins = Some(vec![None]);
        assert!(handshake.agree(&options).is_ok());
    }
}
