//! HTTP/1.0 and HTTP/1.1 (RFC 9112), strict.
//!
//! [`machine`] is the protocol: bytes in, events out, the clock passed in, no I/O. [`head`] and [`chunked`] are its two
//! parsers, [`encode`] writes heads, [`upload`] is a body on its way to a handler that takes it as it comes. [`parse`] is for
//! bytes that come from no connection. Only [`serve`] and [`write`] touch a socket.

mod chunked;
pub(crate) mod encode;
mod head;
mod machine;
mod parse;
pub(crate) mod serve;
mod upload;
mod write;

pub use head::{Framing, Head};
pub use machine::{Event, Limits, Machine, Refused, Wait};
pub use parse::{Unparsed, parse_request};

/// The interim response that a client waits for before it sends a body (RFC 9110 section 15.2.1).
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
