//! What can go wrong for a callback that reads and writes a connection.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::error::RequestError;

/// Why a call on a [`super::Connection`] failed.
#[derive(Debug, Clone)]
pub enum StreamError {
    /// This end closed it, or its writing half.
    Closed(&'static str),
    /// Nothing came, or what came was not enough, within the time that the call or the setting gave.
    TimedOut {
        /// How long that was.
        after: Duration,
        /// Whether it was the setting `stream_timeout`.
        by_setting: bool,
    },
    /// The client took nothing of what was written for `write_timeout`, and the connection is dropped.
    WriteTimeout(Duration),
    /// The client is gone, or what it sent is no TLS; the text says how that was noticed.
    Lost {
        /// What the operating system or the TLS library said.
        why: String,
        /// Whether a write noticed.
        writing: bool,
    },
    /// The client's side ended without `close_notify` (RFC 8446 section 6.1).
    Truncated,
    /// The server ended, and with it every connection.
    ServerEnded,
    /// More bytes than the call allows; the text says which limit.
    Limit(String),
    /// The client's side ended within what was to be read.
    Incomplete {
        /// What had come.
        partial: Bytes,
        /// How many bytes were asked for; none where a separator was.
        expected: Option<usize>,
    },
    /// A request was refused; its client has been told.
    Request(RequestError),
    /// A call that does not fit what came before.
    Misuse(&'static str),
}

impl StreamError {
    /// Whether it is the peer's doing or the network's, and no mistake of the callback.
    pub fn is_daily_business(&self) -> bool {
        !matches!(self, StreamError::Closed(_) | StreamError::Limit(_) | StreamError::Misuse(_))
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::Closed(text) | StreamError::Misuse(text) => f.write_str(text),
            StreamError::TimedOut { after, by_setting } => {
                let named = if *by_setting { " (stream_timeout)" } else { "" };
                write!(f, "not enough came within {} s{named}", after.as_secs_f64())
            }
            StreamError::WriteTimeout(time) => {
                write!(f, "the client took nothing for {} s (write_timeout)", time.as_secs_f64())
            }
            StreamError::Lost { why, .. } => f.write_str(why),
            StreamError::Truncated => f.write_str(
                "the client's side ended without close_notify: what it sent may be cut short (RFC 8446 section 6.1)",
            ),
            StreamError::ServerEnded => f.write_str("the server has ended"),
            StreamError::Limit(text) => f.write_str(text),
            StreamError::Incomplete { partial, expected: Some(expected) } => {
                write!(f, "the client's side ended after {} of {expected} bytes", partial.len())
            }
            StreamError::Incomplete { partial, expected: None } => {
                write!(f, "the client's side ended after {} bytes, before the separator", partial.len())
            }
            StreamError::Request(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StreamError {}
