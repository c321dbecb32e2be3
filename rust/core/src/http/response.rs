//! A response that may be sent as it is: what the types do not rule out, [`Response::check`] does.

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::body::{Body, Broken};
use crate::error::{Error, RequestError};
use crate::websocket::Upgrade;

/// The most header lines of a response. No client takes as many; HTTP/2's header map ends at 24 000.
pub(super) const MAX_HEADERS: usize = 1_000;

/// One response.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// The header lines, in the order in which they are sent.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Body,
    /// What the connection goes on with after this response, which is a 101 then.
    pub upgrade: Option<Box<Upgrade>>,
}

impl Response {
    /// A response without headers.
    pub fn new(status: StatusCode, body: impl Into<Body>) -> Self {
        Response { status, headers: Vec::new(), body: body.into(), upgrade: None }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// The server's own words for a status: a line of plain text.
    pub fn plain(status: StatusCode) -> Self {
        let reason = status.canonical_reason().unwrap_or("Unknown");
        Response::new(status, format!("{} {reason}\n", status.as_u16()))
            .with(header::CONTENT_TYPE, "text/plain; charset=utf-8")
    }

    /// What is sent in place of a response that has failed already, before anything of it was sent; see [`Body::settle`].
    pub(crate) fn settle(&mut self, method: &Method) -> Result<(), Broken> {
        let settled = if self.is_bodiless(method) { Ok(()) } else { self.body.settle() };
        if settled.is_err() {
            *self = Response::plain(StatusCode::INTERNAL_SERVER_ERROR);
        }
        settled
    }

    /// The answer to a refused request. Its message stays in the log: it is for the server's people.
    pub fn refusal(error: &RequestError) -> Self {
        let status = StatusCode::from_u16(error.refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let response = Response::plain(status);
        match status {
            StatusCode::SERVICE_UNAVAILABLE => response.with(header::RETRY_AFTER, "1"),
            _ => response,
        }
    }

    /// The answer to `OPTIONS *`: what the server as a whole can do (RFC 9110 section 9.3.7).
    pub fn options() -> Self {
        Response::new(StatusCode::NO_CONTENT, Body::default())
            .with(header::ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    }

    /// Whether this response to a request of that method has no body on the wire (RFC 9110 section 6.4.1).
    pub fn is_bodiless(&self, method: &Method) -> bool {
        method == Method::HEAD || self.forbids_body()
    }

    /// Whether its status has no body whatever was asked.
    pub fn forbids_body(&self) -> bool {
        matches!(self.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
    }

    /// Looks for what would break the message's framing. A body that comes in pieces has the length that is given.
    ///
    /// # Errors
    /// [`Error::Response`]: an interim status, which cannot end a request; a `Transfer-Encoding`, which is the
    /// server's business; a `Content-Length` that is not the body's.
    pub fn check(&mut self) -> Result<(), Error> {
        if self.upgrade.is_some() {
            self.check_upgrade()?;
        } else if self.status.is_informational() {
            let status = self.status.as_u16();
            return Err(Error::Response(format!(
                "statusCode {status}: an interim status (1xx) cannot end a request; use 200 to 599"
            )));
        }
        if self.headers.len() > MAX_HEADERS {
            return Err(Error::Response(format!("more than {MAX_HEADERS} header lines")));
        }
        for (name, value) in &self.headers {
            if name == header::TRANSFER_ENCODING {
                return Err(Error::Response(
                    "header transfer-encoding: the server chooses the transfer coding; leave it out".into(),
                ));
            }
            if name != header::CONTENT_LENGTH {
                continue;
            }
            match &mut self.body {
                Body::Pieces(pieces) if pieces.length().is_none() => match number(value) {
                    Some(length) => pieces.set_length(length),
                    None => return Err(Error::Response(format!("header content-length: {value:?} is no length"))),
                },
                // A handler may answer HEAD with the length that GET would have and no body.
                body => match body.length().unwrap_or_default() {
                    0 => {}
                    length if value.as_bytes() == length.to_string().as_bytes() => {}
                    length => {
                        return Err(Error::Response(format!(
                            "header content-length: {value:?} is not the length of the body, {length}; leave it out"
                        )));
                    }
                },
            }
        }
        Ok(())
    }

    fn check_upgrade(&self) -> Result<(), Error> {
        if self.status != StatusCode::SWITCHING_PROTOCOLS || !self.body.is_empty() {
            let text = "a WebSocket's response has the statusCode 101 and no other body";
            return Err(Error::Response(text.into()));
        }
        Ok(())
    }

    /// The length to announce: the body's, or for an empty body the one the handler gave. None where RFC 9110
    /// section 8.6 forbids it, and where it is not known.
    pub fn content_length(&self, method: &Method) -> Option<u64> {
        if self.status == StatusCode::NO_CONTENT || self.status.is_informational() {
            return None;
        }
        let given = || self.headers.iter().find(|(name, _)| name == header::CONTENT_LENGTH);
        match (self.body.length(), self.is_bodiless(method)) {
            (Some(0), true) => {
                let given = given().and_then(|(_, value)| number(value));
                if self.status == StatusCode::NOT_MODIFIED { given } else { Some(given.unwrap_or(0)) }
            }
            (_, true) if self.status == StatusCode::RESET_CONTENT => Some(0),
            (length, _) => length,
        }
    }

    /// Whether a header is the connection's or the framing's own, and so written by the server alone.
    pub fn is_framing(name: &HeaderName) -> bool {
        *name == header::CONTENT_LENGTH || *name == header::CONNECTION || name.as_str() == "keep-alive"
    }
}

/// A length as RFC 9110 section 8.6 has it: digits alone.
fn number(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_length(body: &'static str, length: &'static str) -> Response {
        Response::new(StatusCode::OK, body).with(header::CONTENT_LENGTH, length)
    }

    #[test]
    fn framing_is_checked() {
        assert!(with_length("ab", "2").check().is_ok());
        assert!(with_length("ab", "3").check().is_err());
        assert!(with_length("", "3").check().is_ok(), "the answer to HEAD");
        assert!(Response::plain(StatusCode::CONTINUE).check().is_err());
        assert!(Response::plain(StatusCode::OK).with(header::TRANSFER_ENCODING, "chunked").check().is_err());
    }

    #[test]
    fn announced_lengths() {
        assert_eq!(with_length("", "3").content_length(&Method::HEAD), Some(3));
        assert_eq!(with_length("", "3").content_length(&Method::GET), Some(0));
        assert_eq!(with_length("ab", "2").content_length(&Method::HEAD), Some(2));
        assert_eq!(Response::plain(StatusCode::NO_CONTENT).content_length(&Method::GET), None);
        assert_eq!(Response::plain(StatusCode::RESET_CONTENT).content_length(&Method::GET), Some(0));
        assert_eq!(Response::new(StatusCode::NOT_MODIFIED, "").content_length(&Method::GET), None);
    }
}
