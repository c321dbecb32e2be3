//! Connections without HTTP, or with HTTP by hand: a callback reads and writes the bytes of a connection itself.
//!
//! The connection's task ([`pump`]) stays on its event loop and owns the socket. Between it and the callback, which runs
//! on another thread or another loop, stands a bounded [`pipe`]: bytes that have come and were not read yet, bytes that
//! were written and have not left yet. The callback's end of it is a [`Connection`]: each of its calls is an
//! [`Operation`], which is polled by whoever can, or waited for on a thread. [`by_hand`] reads requests from it with the
//! HTTP/1 machine and answers them.

mod by_hand;
mod connection;
mod error;
mod operation;
mod pipe;
mod pump;

use std::sync::Arc;

pub use connection::{Connection, Timeout};
pub use error::StreamError;
pub(crate) use operation::What;
pub use operation::{Done, Operation};
pub(crate) use pipe::{End, Pipe, Plan};
pub(crate) use pump::serve;

/// Takes connections, each with its bytes to read and to write. The seam to whoever embeds this, beside
/// [`crate::Handler`].
pub trait StreamHandler: Send + Sync + 'static {
    /// Takes a connection, to be read and written from any thread. It is called on an I/O thread and must not block it.
    /// The connection ends when it is closed or dropped.
    fn call(&self, connection: Connection);
}

impl<F: Fn(Connection) + Send + Sync + 'static> StreamHandler for F {
    fn call(&self, connection: Connection) {
        self(connection);
    }
}

/// What a listener does with its connections in place of serving HTTP.
#[derive(Clone)]
pub struct Streams {
    /// Who takes them.
    pub handler: Arc<dyn StreamHandler>,
    /// The protocols offered by ALPN (RFC 7301), the preferred one first. With none, what a client offers does not
    /// matter.
    pub alpn: Vec<Vec<u8>>,
}
