//! A request's body that comes while its handler runs: bounded between the connection and the handler, whichever is slower.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::channel::Unpark;
use crate::error::RequestError;
use crate::locks::Mutex;

/// The connection is not read further while more than this waits for the handler.
const HIGH_WATER: usize = 64 * 1024;
/// What is shorter is copied: a client that sends byte by byte must not have us keep what each of them was read into.
const COPIED: usize = 4 * 1024;

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
    /// What was copied, behind those.
    copied: BytesMut,
    /// Bytes in both.
    queued: usize,
    ended: Option<Result<(), Cut>>,
    /// The handler has asked for the body.
    asked: bool,
    /// Mostly one; any number of threads may read.
    readers: Vec<Waker>,
    feeder: Option<Waker>,
}

/// Both ends of a body.
pub(crate) fn incoming() -> (Feeder, Incoming) {
    let state = Arc::<Mutex<State>>::default();
    (Feeder(state.clone()), Incoming(state))
}

impl State {
    fn pop(&mut self) -> Option<Bytes> {
        if self.waiting.is_empty() {
            self.flush();
        }
        self.waiting.pop_front()
    }

    /// Puts what was copied behind what waits.
    fn flush(&mut self) {
        if !self.copied.is_empty() {
            self.waiting.push_back(std::mem::take(&mut self.copied).freeze());
        }
    }
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
            let result = match (state.pop(), &state.ended) {
                (Some(piece), _) => {
                    state.queued -= piece.len();
                    Poll::Ready(Ok(Some(piece)))
                }
                (None, Some(end)) => Poll::Ready(end.clone().map(|()| None)),
                (None, None) => {
                    if !state.readers.iter().any(|known| known.will_wake(cx.waker())) {
                        state.readers.push(cx.waker().clone());
                    }
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
        let readers = {
            let mut state = self.0.lock();
            state.queued += piece.len();
            if piece.len() < COPIED {
                state.copied.extend_from_slice(&piece);
            } else {
                state.flush();
                state.waiting.push_back(piece);
            }
            std::mem::take(&mut state.readers)
        };
        readers.into_iter().for_each(Waker::wake);
    }

    /// Nothing more comes. What was said first counts.
    pub(crate) fn end(&self, end: Result<(), Cut>) {
        let readers = {
            let mut state = self.0.lock();
            state.ended.get_or_insert(end);
            std::mem::take(&mut state.readers)
        };
        readers.into_iter().for_each(Waker::wake);
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

    #[test]
    fn small_pieces_are_joined_between_large_ones() {
        let (feeder, body) = incoming();
        let large = Bytes::from(vec![b'x'; COPIED]);
        for piece in [&b"a"[..], b"b", &large, b"c", b""] {
            feeder.push(Bytes::copy_from_slice(piece));
        }
        feeder.end(Ok(()));
        let next = || body.wait_for_piece().unwrap();
        assert_eq!(next().unwrap(), "ab");
        assert_eq!(next().unwrap(), large);
        assert_eq!(next().unwrap(), "c");
        assert_eq!(next(), None);
        assert!(feeder.has_room());
    }

    #[test]
    fn everyone_who_waits_hears_of_the_end() {
        let (feeder, body) = incoming();
        let readers = [(); 3].map(|()| {
            let body = body.clone();
            std::thread::spawn(move || body.wait_for_piece().is_ok())
        });
        while feeder.0.lock().readers.len() < readers.len() {
            std::thread::yield_now();
        }
        drop(feeder);
        assert!(readers.into_iter().all(|reader| !reader.join().unwrap()));
    }
}
