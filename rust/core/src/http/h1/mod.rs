//! HTTP/1.0 and HTTP/1.1 (RFC 9112), strict.
//!
//! [`machine`] is the protocol: bytes in, events out, the clock passed in, no I/O. [`head`] and [`chunked`] are its two
//! parsers, [`encode`] writes heads. [`serve`] is the only part that touches a socket.

mod chunked;
mod encode;
mod head;
mod machine;
pub(crate) mod serve;

pub use head::{Framing, Head};
pub use machine::{Event, Limits, Machine, Wait};
