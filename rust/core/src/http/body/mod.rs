//! Bodies: here whole, or sent while they are made.

mod channel;
mod collected;
mod incoming;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::Trailers;
use crate::files::OpenFile;

pub use channel::{BodySender, Gone, channel};
pub(crate) use collected::Collected;
pub use incoming::{Cut, Incoming};
pub(crate) use incoming::{Feeder, incoming};

/// How much of a body is looked at before its head is sent.
const SMALL: usize = 16 * 1024;

/// The body of a response.
#[derive(Debug)]
pub enum Body {
    /// It is here.
    Whole(Bytes),
    /// It comes piece by piece.
    Pieces(Pieces),
    /// It is a file.
    File(Box<OpenFile>),
}

impl Body {
    /// Its length in bytes, where it is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Body::Whole(bytes) => Some(bytes.len() as u64),
            Body::Pieces(pieces) => pieces.length,
            Body::File(file) => Some(file.length()),
        }
    }

    /// Looks at what is here of a body that comes in pieces, before anything is sent: one that is whole by now is sent as
    /// such, with its length.
    ///
    /// # Errors
    /// [`Broken`]: it broke off already, and something else can be sent in its place.
    pub(crate) fn settle(&mut self) -> Result<(), Broken> {
        if let Body::File(file) = self {
            *self = file.body();
        }
        let Body::Pieces(pieces) = self else { return Ok(()) };
        if pieces.source.is_settled() {
            return Ok(());
        }
        let mut cx = Context::from_waker(Waker::noop());
        let (mut here, mut size) = (VecDeque::new(), 0);
        while size <= SMALL {
            match pieces.poll_next(&mut cx) {
                Poll::Ready(Some(Ok(piece))) => {
                    size += piece.len();
                    here.push_back(piece);
                }
                Poll::Ready(Some(Err(Broken))) => return Err(Broken),
                // What has trailers has its end where they are.
                Poll::Ready(None) if pieces.has_trailers => break,
                Poll::Ready(None) => {
                    let mut whole = Collected::default();
                    here.into_iter().for_each(|piece| whole.push(piece));
                    *self = Body::Whole(whole.finish());
                    return Ok(());
                }
                Poll::Pending => break,
            }
        }
        pieces.here = here;
        Ok(())
    }

    /// Whether it is known to be empty, and nothing follows.
    pub fn is_empty(&self) -> bool {
        self.length() == Some(0) && !self.has_trailers()
    }

    /// Whether trailers may follow.
    pub(crate) fn has_trailers(&self) -> bool {
        matches!(self, Body::Pieces(pieces) if pieces.has_trailers)
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
    /// The next piece; none at the end, and again where it has trailers. Polled on the event loop of the connection, so it
    /// must not block.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>>;

    /// What follows its last piece; asked for once, at the end, and only where [`Pieces::with_trailers`] says that there may
    /// be some.
    fn trailers(&mut self) -> Trailers {
        Trailers::default()
    }

    /// Whether to stop when the client has only closed its sending half. One that said so still reads, but most that do
    /// so have left.
    fn stops_at_half_close(&self) -> bool {
        false
    }

    /// Whether there is nothing to be learned by looking at it before its head is sent: it is as long as was said, and not
    /// likely to fail.
    fn is_settled(&self) -> bool {
        false
    }
}

/// A body that comes piece by piece.
pub struct Pieces {
    /// Its length in bytes, where it is known: no more and no less is sent.
    length: Option<u64>,
    /// How much of that is missing.
    left: Option<u64>,
    /// Taken from the source already.
    here: VecDeque<Bytes>,
    has_trailers: bool,
    source: Box<dyn Source>,
}

impl Pieces {
    /// A body of that length, where it is known, from `source`.
    pub fn new(length: Option<u64>, source: impl Source) -> Self {
        Pieces { length, left: length, here: VecDeque::new(), has_trailers: false, source: Box::new(source) }
    }

    /// The same with the trailers of the source behind it: for a request that takes them, see
    /// [`super::Request::takes_trailers`]. HTTP/1.1 sends it in chunks then, whether its length is known or not.
    #[must_use]
    pub fn with_trailers(mut self) -> Self {
        self.has_trailers = true;
        self
    }

    pub(crate) fn has_trailers(&self) -> bool {
        self.has_trailers
    }

    /// What follows, once there are no more pieces.
    pub(crate) fn trailers(&mut self) -> Trailers {
        if self.has_trailers { self.source.trailers() } else { Trailers::default() }
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// For a length that the headers give.
    pub(crate) fn set_length(&mut self, length: u64) {
        self.length = Some(length);
        self.left = Some(length);
    }

    pub(crate) fn stops_at_half_close(&self) -> bool {
        self.source.stops_at_half_close()
    }

    /// Whether it is known that nothing follows.
    pub(crate) fn is_over(&self) -> bool {
        self.left == Some(0) && self.here.is_empty() && self.source.is_settled() && !self.has_trailers
    }

    /// The next piece, none of which is empty. What does not keep to the length is broken.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Some(piece) = self.here.pop_front() {
            return Poll::Ready(Some(Ok(piece)));
        }
        loop {
            let piece = std::task::ready!(self.source.poll_piece(cx));
            return Poll::Ready(match piece {
                Some(Ok(piece)) if piece.is_empty() => continue,
                Some(Ok(piece)) => match &mut self.left {
                    None => Some(Ok(piece)),
                    Some(left) => match left.checked_sub(piece.len() as u64) {
                        Some(less) => {
                            *left = less;
                            Some(Ok(piece))
                        }
                        None => Some(Err(Broken)),
                    },
                },
                None if self.left.is_some_and(|left| left > 0) => Some(Err(Broken)),
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
