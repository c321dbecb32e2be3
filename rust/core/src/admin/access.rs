//! Who may look: by a token, or, without one, whoever is on this machine.

use std::net::IpAddr;

use aws_lc_rs::{constant_time, digest, hmac};
use http::StatusCode;
use http::header::{self, HeaderValue};

use crate::connection::Address;
use crate::error::Error;
use crate::http::target::split_port;
use crate::http::{Request, Response};

/// What clients have to show.
pub struct Token(Vec<u8>);

/// The fewest characters of a token: 16 of base64 are 96 bits.
const SHORTEST: usize = 16;

impl Token {
    /// A token that can be sent in a header (RFC 6750 section 2.1).
    ///
    /// # Errors
    /// [`Error::Config`], which does not repeat it.
    pub fn new(text: &str) -> Result<Self, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if text.len() < SHORTEST || !text.bytes().all(allowed) {
            return Err(Error::Config(format!(
                "token: {SHORTEST} characters or more, letters, digits and -._~+/= only; secrets.token_urlsafe() makes one"
            )));
        }
        Ok(Token(text.as_bytes().to_vec()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// The cookie by which a browser shows that it had the token.
const COOKIE: &str = "portico-admin";

/// The rule of one listener.
pub(super) struct Access {
    token: Option<Token>,
    /// What the cookie holds: made from the token, which it does not tell.
    cookie: String,
}

/// What becomes of a request.
pub(super) enum Entry {
    /// It may see everything.
    Free,
    /// It gets this.
    Not(Response),
}

impl Access {
    pub(super) fn new(token: Option<Token>) -> Self {
        let cookie = token.as_ref().map_or_else(String::new, |token| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &token.0);
            hex(hmac::sign(&key, b"portico admin cookie").as_ref())
        });
        Access { token, cookie }
    }

    /// Whether that address may be listened on.
    ///
    /// # Errors
    /// [`Error::Config`]: others than this machine can reach it, and there is no token.
    pub(super) fn check(&self, address: &Address) -> Result<(), Error> {
        match address {
            Address::Inet(inet) if self.token.is_none() && !inet.ip().to_canonical().is_loopback() => {
                Err(Error::Config(format!(
                    "listen_admin on {address}: other machines can reach it, so it needs a token; without one listen on 127.0.0.1"
                )))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn enter(&self, request: &Request) -> Entry {
        match &self.token {
            Some(token) => self.by_token(token, request),
            // It could read nothing, but hold every connection that there may be.
            None if is_of_another_site(request) => Entry::Not(Response::plain(StatusCode::FORBIDDEN)),
            None if is_meant_for_this_machine(request) => Entry::Free,
            // A page of a stranger's whose name leads here (DNS rebinding) is to read nothing.
            None => Entry::Not(Response::plain(StatusCode::MISDIRECTED_REQUEST)),
        }
    }

    fn by_token(&self, token: &Token, request: &Request) -> Entry {
        let bearer = request.headers.get("authorization").and_then(|value| {
            let (scheme, shown) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| shown.trim_ascii())
        });
        if bearer.is_some_and(|shown| is_same(shown, &token.0)) {
            return Entry::Free;
        }
        let mut cookies = request.cookies();
        if cookies.any(|(name, value)| name == COOKIE.as_bytes() && is_same(value, self.cookie.as_bytes())) {
            return Entry::Free;
        }
        let mut query = form_urlencoded::parse(request.target.query().as_bytes());
        match query.find(|(name, _)| name == "token") {
            Some((_, shown)) if is_same(shown.as_bytes(), &token.0) => Entry::Not(self.let_in(request)),
            _ => Entry::Not(refusal()),
        }
    }

    /// A browser has the token in its address line, from where it would go on into its history: it gets a cookie in place
    /// of that, and comes again.
    fn let_in(&self, request: &Request) -> Response {
        let secure = request.connection.as_ref().is_some_and(|connection| connection.secure);
        let secure = if secure { "; Secure" } else { "" };
        let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict{secure}", self.cookie);
        let mut response = Response::new(StatusCode::SEE_OTHER, "").with(header::REFERRER_POLICY, "no-referrer");
        // One slash: behind two of them stands the name of another server (RFC 3986 section 4.2).
        let path = format!("/{}", request.target.raw_path().trim_start_matches('/'));
        let values = [(header::SET_COOKIE, cookie), (header::LOCATION, path)];
        for (name, value) in values {
            response.headers.extend(HeaderValue::try_from(value).map(|value| (name, value)));
        }
        response
    }
}

fn refusal() -> Response {
    let text =
        "401 Unauthorized\n\nShow the token: Authorization: Bearer TOKEN, or, in a browser, ?token=TOKEN once.\n";
    Response::new(StatusCode::UNAUTHORIZED, text)
        .with(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .with(header::WWW_AUTHENTICATE, "Bearer realm=\"portico admin\"")
}

/// Compares digests, so that the time tells nothing, not even a length.
fn is_same(shown: &[u8], known: &[u8]) -> bool {
    let digest = |text| digest::digest(&digest::SHA256, text);
    constant_time::verify_slices_are_equal(digest(shown).as_ref(), digest(known).as_ref()).is_ok()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether a page of another site has a browser ask, by more than a link (W3C Fetch Metadata).
fn is_of_another_site(request: &Request) -> bool {
    let says =
        |name, value: &str| request.headers.get(name).is_some_and(|said| said.eq_ignore_ascii_case(value.as_bytes()));
    (says("sec-fetch-site", "cross-site") || says("sec-fetch-site", "same-site")) && !says("sec-fetch-mode", "navigate")
}

/// Whether a request names this machine as such, and not by a name that anybody may have given it. Clients of a Unix socket
/// are no browsers, and HTTP/1.0 without `Host` is none either.
fn is_meant_for_this_machine(request: &Request) -> bool {
    if request.connection.as_ref().is_some_and(|connection| matches!(connection.local, Address::Unix(_))) {
        return true;
    }
    let (name, _) = split_port(request.host().as_bytes());
    let name = std::str::from_utf8(name).unwrap_or_default().trim_end_matches('.');
    let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let is_local = |name: &str| {
        let last = name.rsplit('.').next().unwrap_or_default();
        last.eq_ignore_ascii_case("localhost")
    };
    name.is_empty() || is_address || is_local(name)
}
