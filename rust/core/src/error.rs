//! Errors by stage. Each says what was being done, to which server, host or peer, and why it failed;
//! [`Error::blame`] says who can mend it.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::connection::ConnectionInfo;

/// Who caused an error, and so who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The program that embeds portico: a wrong setting, certificate, response or call.
    Caller,
    /// The other end of a connection.
    Peer,
    /// The machine: an address in use, no descriptors left.
    Machine,
}

/// What a call on a [`crate::Server`] can fail with.
#[derive(Debug)]
pub enum Error {
    /// A setting, a host name or an argument is wrong.
    Config(String),
    /// A certificate or its key cannot be used.
    Certificate(String),
    /// An address cannot be listened on.
    Listen {
        /// The address as the caller gave it.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server, listener or context is gone.
    Closed(String),
    /// A response cannot be sent as it is.
    Response(String),
    /// Bytes are not an acceptable HTTP request.
    Request(RequestError),
}

impl Error {
    /// Who caused it.
    pub fn blame(&self) -> Blame {
        match self {
            Error::Config(_) | Error::Certificate(_) | Error::Closed(_) | Error::Response(_) => Blame::Caller,
            Error::Listen { .. } => Blame::Machine,
            Error::Request(_) => Blame::Peer,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(text) | Error::Certificate(text) | Error::Closed(text) | Error::Response(text) => {
                f.write_str(text)
            }
            Error::Listen { address, source } => {
                // The number is the exception's errno already.
                let text = source.to_string();
                let text = text.split(" (os error").next().unwrap_or_default();
                write!(f, "cannot listen on {address}: {text}")
            }
            Error::Request(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Listen { source, .. } => Some(source),
            Error::Request(error) => Some(error),
            _ => None,
        }
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        Error::Request(error)
    }
}

/// Why a request was refused: the label under which it is counted, and the status that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Refusal {
    /// The request line is malformed (RFC 9112 section 3).
    RequestLine,
    /// A header line is malformed (RFC 9112 section 5).
    Header,
    /// `Host` is missing, repeated or malformed (RFC 9112 section 3.2).
    Host,
    /// The length of the body is missing, contradictory or malformed (RFC 9112 section 6).
    Framing,
    /// A chunk or trailer is malformed (RFC 9112 section 7.1).
    Chunk,
    /// The request target alone is longer than `max_header_bytes`.
    TargetBytes,
    /// The head is longer than `max_header_bytes`.
    HeaderBytes,
    /// More than `max_headers` header lines.
    Headers,
    /// The body is longer than `max_request_read_bytes`.
    BodyBytes,
    /// The head did not arrive within `header_timeout`.
    HeaderTimeout,
    /// The body made no progress for `body_timeout`.
    BodyTimeout,
    /// The body has a content coding that is not one of `decompression` (RFC 9110 section 15.5.16).
    ContentCoding,
    /// The body is not what its content coding makes of any.
    Undecodable,
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    Expectation,
    /// A transfer coding or method that this server does not speak.
    NotImplemented,
    /// An HTTP version that this server does not speak.
    Version,
    /// The connection was made for another host (RFC 9110 section 15.5.20).
    Misdirected,
    /// `max_in_flight` requests are being answered.
    InFlight,
    /// No handler is set for the host.
    NoHandler,
    /// The handler took longer than `handler_timeout`.
    HandlerTimeout,
}

impl Refusal {
    /// Every refusal, in the order of their labels' indices.
    pub const ALL: [Refusal; 20] = [
        Refusal::RequestLine,
        Refusal::Header,
        Refusal::Host,
        Refusal::Framing,
        Refusal::Chunk,
        Refusal::TargetBytes,
        Refusal::HeaderBytes,
        Refusal::Headers,
        Refusal::BodyBytes,
        Refusal::HeaderTimeout,
        Refusal::BodyTimeout,
        Refusal::ContentCoding,
        Refusal::Undecodable,
        Refusal::Expectation,
        Refusal::NotImplemented,
        Refusal::Version,
        Refusal::Misdirected,
        Refusal::InFlight,
        Refusal::NoHandler,
        Refusal::HandlerTimeout,
    ];

    /// The label in `stats()` and in logs.
    pub fn label(self) -> &'static str {
        match self {
            Refusal::RequestLine => "request_line",
            Refusal::Header => "header",
            Refusal::Host => "host",
            Refusal::Framing => "framing",
            Refusal::Chunk => "chunk",
            Refusal::TargetBytes => "target_bytes",
            Refusal::HeaderBytes => "header_bytes",
            Refusal::Headers => "headers",
            Refusal::BodyBytes => "body_bytes",
            Refusal::HeaderTimeout => "header_timeout",
            Refusal::BodyTimeout => "body_timeout",
            Refusal::ContentCoding => "content_coding",
            Refusal::Undecodable => "undecodable",
            Refusal::Expectation => "expectation",
            Refusal::NotImplemented => "not_implemented",
            Refusal::Version => "version",
            Refusal::Misdirected => "misdirected",
            Refusal::InFlight => "max_in_flight",
            Refusal::NoHandler => "no_handler",
            Refusal::HandlerTimeout => "handler_timeout",
        }
    }

    /// The status code that answers it.
    pub fn status(self) -> u16 {
        match self {
            Refusal::RequestLine
            | Refusal::Header
            | Refusal::Host
            | Refusal::Framing
            | Refusal::Chunk
            | Refusal::Undecodable => 400,
            Refusal::NoHandler => 404,
            Refusal::HeaderTimeout | Refusal::BodyTimeout => 408,
            Refusal::BodyBytes => 413,
            Refusal::TargetBytes => 414,
            Refusal::ContentCoding => 415,
            Refusal::Expectation => 417,
            Refusal::Misdirected => 421,
            Refusal::HeaderBytes | Refusal::Headers => 431,
            Refusal::NotImplemented => 501,
            Refusal::InFlight | Refusal::HandlerTimeout => 503,
            Refusal::Version => 505,
        }
    }

    /// Whether a limit was passed, as against bytes that are wrong in any amount.
    pub fn is_limit(self) -> bool {
        matches!(self.status(), 408 | 413 | 414 | 431 | 503)
    }
}

/// A request that is refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestError {
    /// The kind: its label and status.
    pub refusal: Refusal,
    /// What is wrong, for people.
    pub message: Cow<'static, str>,
}

impl RequestError {
    /// A refusal with its explanation.
    pub fn new(refusal: Refusal, message: impl Into<Cow<'static, str>>) -> Self {
        RequestError { refusal, message: message.into() }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request refused with {}: {}", self.refusal.status(), self.message)
    }
}

impl std::error::Error for RequestError {}

/// Where in a connection's life something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The listening socket.
    Accept,
    /// A limit on connections.
    Admission,
    /// The TLS handshake.
    Handshake,
    /// Reading or refusing a request.
    Request,
    /// Reading a certificate again: nobody called, so nobody can be told otherwise.
    Certificate,
    /// A certificate that ends soon, or that clients will mind: nothing failed yet.
    Warning,
    /// The access log cannot be written, or is again.
    AccessLog,
}

/// An error of one connection, or of what a server does by itself. It reaches no caller: it is handed to the [`Observer`].
#[derive(Debug, Clone)]
pub struct Report {
    /// Where it happened.
    pub stage: Stage,
    /// The label under which it was counted, where it was.
    pub reason: &'static str,
    /// What happened, to which server, peer and host, and why.
    pub message: String,
    /// The status that the peer was answered with, where there was one.
    pub status: Option<u16>,
    /// Whose it is, where it got so far.
    pub connection: Option<Arc<ConnectionInfo>>,
}

/// Told of the errors of connections. Called on I/O threads: it must neither block nor panic.
pub trait Observer: Send + Sync + 'static {
    /// One error of one connection.
    fn report(&self, report: Report);

    /// Lines of the access log, each with its end, where the setting `access_log` says that the embedding program takes them.
    /// Called on a thread for this only, which may take its time.
    fn access(&self, lines: &str) {
        let _ = lines;
    }
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    #[test]
    fn refusals_are_listed_in_order() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index, "{refusal:?}");
        }
    }
}
