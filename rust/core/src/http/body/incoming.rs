//! A request's body that comes while its handler runs: bounded between the connection and the handler, whichever is slower.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::locks::Mutex;
use bytes::Bytes;

use super::channel::Unpark;
use crate::error::RequestError;

/// The connection is not read further while more than this waits for the handler.
const HIGH_WATER: usize = 64 * 1024;

/// Why a body ended before it was whole.
#[derive(Debug, Clone)]
pub enum Cut {
    /// The client has left, or its request is over: answered, or too late for an answer.
    Left,
    /// A limit, a time-out, or bytes that are no body.
    Refused(RequestError),
}

/// The end at which a handler takes a body.
#[derive(Debug, Clone)]
pub struct Incoming(Arc<Mutex<State>>);

/// The end at which a connection gives what it reads. Dropped before the end the body is cut off.
#[derive(Debug)]
pub(crate) struct Feeder(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Bytes>,
    /// Bytes in `waiting`.
    queued: usize,
    ended: Option<Result<(), Cut>>,
    /// The handler has asked for the body.
    asked: bool,
    reader: Option<Waker>,
    feeder: Option<Waker>,
}

/// Both ends of a body.
pub(crate) fn incoming() -> (Feeder, Incoming) {
    let state = Arc::<Mutex<State>>::default();
    (Feeder(state.clone()), Incoming(state))
}

impl Incoming {
    /// The next piece, never empty; none at the end.
    ///
    /// # Errors
    /// [`Cut`], each time again.
    pub fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Cut>> {
        let (result, feeder) = {
            let mut state = self.0.lock();
            let first = !std::mem::replace(&mut state.asked, true);
            let result = match (state.waiting.pop_front(), &state.ended) {
                (Some(piece), _) => {
                    state.queued -= piece.len();
                    Poll::Ready(Ok(Some(piece)))
                }
                (None, Some(end)) => Poll::Ready(end.clone().map(|()| None)),
                (None, None) => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
            let wake = first || state.queued <= HIGH_WATER;
            (result, if wake { state.feeder.take() } else { None })
        };
        feeder.into_iter().for_each(Waker::wake);
        result
    }

    /// The same, waited for on this thread.
    ///
    /// # Errors
    /// [`Cut`].
    pub fn wait_for_piece(&self) -> Result<Option<Bytes>, Cut> {
        let waker = Waker::from(Arc::new(Unpark::this_thread()));
        let mut cx = Context::from_waker(&waker);
        loop {
            match self.poll_piece(&mut cx) {
                Poll::Ready(piece) => return piece,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl Feeder {
    /// Whether the handler has asked for the body.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.lock().asked
    }

    /// Whether there is room for more.
    pub(crate) fn has_room(&self) -> bool {
        self.0.lock().queued <= HIGH_WATER
    }

    /// Ready when there is room and, where it is to be `asked` for, it has been.
    pub(crate) fn poll_wanted(&self, asked: bool, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.queued <= HIGH_WATER && (state.asked || !asked) {
            return Poll::Ready(());
        }
        state.feeder = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn push(&self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let reader = {
            let mut state = self.0.lock();
            state.queued += piece.len();
            state.waiting.push_back(piece);
            state.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
    }

    /// Nothing more comes. What was said first counts.
    pub(crate) fn end(&self, end: Result<(), Cut>) {
        let reader = {
            let mut state = self.0.lock();
            state.ended.get_or_insert(end);
            state.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.end(Err(Cut::Left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_bounded_and_cut_where_its_feeder_goes() {
        let (feeder, body) = incoming();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(feeder.poll_wanted(true, &mut cx).is_pending());
        feeder.push(Bytes::from(vec![0; HIGH_WATER + 1]));
        assert!(!feeder.has_room());
        assert!(matches!(body.wait_for_piece(), Ok(Some(piece)) if piece.len() == HIGH_WATER + 1));
        assert!(feeder.poll_wanted(true, &mut cx).is_ready());
        drop(feeder);
        assert!(matches!(body.wait_for_piece(), Err(Cut::Left)));
    }
}
