//! WebSockets (RFC 6455), over HTTP/1.1 and over HTTP/2 (RFC 8441).
//!
//! [`handshake`] says which requests become one. What does is answered with a [`Response`] that has an [`Upgrade`]: whoever
//! writes that response gives the bytes that follow to [`serve`], the task of the socket, which stays on the connection's
//! event loop. [`machine`] is the protocol without I/O or clock; `wire` is what a task needs of a connection or of a
//! stream of HTTP/2; `deflate` is compression. Between the task and its callback is the same pipe as of connections without
//! HTTP ([`crate::raw`]): whole messages stand in it one way, whole frames the other. The callback's end is a [`Socket`].
//!
//! [`Response`]: crate::http::Response

mod close;
mod deflate;
mod handshake;
mod machine;
mod session;
mod task;
mod utf8;
mod wire;

use std::time::Duration;

pub use close::{Close, Violation};
pub use handshake::{Handshake, Refused};
pub use machine::{Event, Kind, Machine};
pub use session::{Socket, Upgrade};
pub(crate) use task::serve;
pub(crate) use wire::{Counted, Wire};

/// What one handler's sockets may do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The protocols that the handler speaks, the preferred one first (RFC 6455 section 1.9).
    pub subprotocols: Vec<String>,
    /// The largest message of a client, in bytes.
    pub max_message_bytes: usize,
    /// After how long without a word from the client it is asked for one, and how long that may take; none: never.
    pub ping_interval: Option<Duration>,
    /// How long there may be no message in either direction; none: as long as it likes.
    pub idle_timeout: Option<Duration>,
    /// The origins whose pages may connect (RFC 6455 section 10.2), none of them for clients that name none; none: all.
    pub origins: Option<Vec<Option<String>>>,
    /// Whether messages are compressed where the client wants that (RFC 7692).
    pub compression: bool,
}
