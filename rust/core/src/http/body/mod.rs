//! Bodies: here whole, or sent while they are made.

mod channel;
mod collected;

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

pub use channel::{BodySender, Gone, channel};
pub(crate) use collected::Collected;

/// The body of a response.
#[derive(Debug)]
pub enum Body {
    /// It is here.
    Whole(Bytes),
    /// It comes piece by piece.
    Pieces(Pieces),
}

impl Body {
    /// Its length in bytes, where it is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Body::Whole(bytes) => Some(bytes.len() as u64),
            Body::Pieces(pieces) => pieces.length,
        }
    }

    /// Whether it is known to be empty.
    pub fn is_empty(&self) -> bool {
        self.length() == Some(0)
    }
}

impl Default for Body {
    fn default() -> Self {
        Body::Whole(Bytes::new())
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Body::Whole(bytes.into())
    }
}

/// What makes a body has failed, and has told why: the client must not take what it has for all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// Where a body comes from that is sent while it is made. Dropped when nobody wants any more of it.
pub trait Source: Send + 'static {
    /// The next piece; none at the end. Polled on the event loop of the connection, so it must not block.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>>;

    /// Whether to stop when the client has only closed its sending half. One that said so still reads, but most that do
    /// so have left.
    fn stops_at_half_close(&self) -> bool {
        false
    }
}

/// A body that comes piece by piece.
pub struct Pieces {
    /// Its length in bytes, where it is known: no more and no less is sent.
    length: Option<u64>,
    source: Box<dyn Source>,
}

impl Pieces {
    /// A body of that length, where it is known, from `source`.
    pub fn new(length: Option<u64>, source: impl Source) -> Self {
        Pieces { length, source: Box::new(source) }
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// For a length that the headers give.
    pub(crate) fn set_length(&mut self, length: u64) {
        self.length = Some(length);
    }

    pub(crate) fn stops_at_half_close(&self) -> bool {
        self.source.stops_at_half_close()
    }

    /// The next piece, none of which is empty. What does not keep to the length is broken.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            let piece = std::task::ready!(self.source.poll_piece(cx));
            return Poll::Ready(match piece {
                Some(Ok(piece)) if piece.is_empty() => continue,
                Some(Ok(piece)) => match &mut self.length {
                    None => Some(Ok(piece)),
                    Some(left) => match left.checked_sub(piece.len() as u64) {
                        Some(less) => {
                            *left = less;
                            Some(Ok(piece))
                        }
                        None => Some(Err(Broken)),
                    },
                },
                None if self.length.is_some_and(|left| left > 0) => Some(Err(Broken)),
                end => end,
            });
        }
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pieces").field("length", &self.length).finish_non_exhaustive()
    }
}
