//! Bodies: collecting them on the way in, giving them out in pieces on the way back.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

/// A body that arrives in pieces. One piece is kept as it is; more are joined.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    first: Bytes,
    all: BytesMut,
}

impl Collected {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = piece;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&piece);
    }

    pub(crate) fn len(&self) -> usize {
        self.first.len().max(self.all.len())
    }

    pub(crate) fn finish(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

/// The most of a response that HTTP/2 takes at once for one stream: the size of a frame and of a TLS record.
const PIECE: usize = 16 * 1024;

/// Told whenever a client has taken some more.
pub(crate) trait Progress {
    fn moved(&self);
}

/// A whole body, given out in pieces; `progress` lives until the last one was taken.
pub(crate) struct Pieces<P> {
    pub(crate) left: Bytes,
    pub(crate) progress: P,
}

impl<P: Progress + Unpin> Body for Pieces<P> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        self.progress.moved();
        let take = self.left.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(take)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::Collected;

    #[test]
    fn pieces_are_joined() {
        for pieces in [&[][..], &["abc"], &["a", "b", "c"]] {
            let mut body = Collected::default();
            pieces.iter().for_each(|piece| body.push((*piece).into()));
            assert_eq!(body.len(), pieces.concat().len());
            assert_eq!(body.finish(), pieces.concat());
        }
    }
}
