//! A body whose pieces come from another thread or another event loop, as fast as the client takes them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use bytes::Bytes;

use super::{Broken, Pieces, Source};
use crate::http::Trailers;
use crate::locks::Mutex;

/// Whoever makes a body waits while more than this was not taken.
const HIGH_WATER: usize = 64 * 1024;

/// Nobody wants any more of it: the client has left, or the server has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The end of a body at which it is made. Dropped before [`BodySender::finish`] the body is broken.
#[derive(Debug)]
pub struct BodySender(Arc<Shared>);

struct Receiver {
    shared: Arc<Shared>,
    stops_at_half_close: bool,
}

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Bytes>,
    /// Bytes in `waiting`.
    queued: usize,
    /// Whether it was finished, once nothing more comes.
    ended: Option<bool>,
    /// What follows then.
    trailers: Trailers,
    gone: bool,
    receiver: Option<Waker>,
    /// Woken when there is room.
    sender: Option<Waker>,
    /// Woken when nobody wants any more.
    watcher: Option<Waker>,
}

/// A body of that length, where it is known, and the end at which it is made.
pub fn channel(length: Option<u64>, stops_at_half_close: bool) -> (BodySender, Pieces) {
    let shared = Arc::<Shared>::default();
    let receiver = Receiver { shared: shared.clone(), stops_at_half_close };
    (BodySender(shared), Pieces::new(length, receiver))
}

impl BodySender {
    /// Adds a piece, however much waits already; see [`BodySender::poll_room`].
    ///
    /// # Errors
    /// [`Gone`].
    pub fn send(&self, piece: Bytes) -> Result<(), Gone> {
        let receiver = {
            let mut state = self.0.0.lock();
            if state.gone {
                return Err(Gone);
            }
            state.queued += piece.len();
            state.waiting.push_back(piece);
            state.receiver.take()
        };
        receiver.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Ready when there is room for more, or nobody wants it.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut state = self.0.0.lock();
        if state.gone {
            return Poll::Ready(Err(Gone));
        }
        if state.queued <= HIGH_WATER {
            return Poll::Ready(Ok(()));
        }
        state.sender = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether there is room for more.
    pub fn has_room(&self) -> bool {
        self.0.0.lock().queued <= HIGH_WATER
    }

    /// Whether nobody wants it any more.
    pub fn is_gone(&self) -> bool {
        self.0.0.lock().gone
    }

    /// Ready when nobody wants it any more. Only the last waker is woken.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.0.lock();
        if state.gone {
            return Poll::Ready(());
        }
        state.watcher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits on this thread for room, until `deadline` where there is one: then there is none yet.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn wait_for_room(&self, deadline: Option<Instant>) -> Result<bool, Gone> {
        let waker = Waker::from(Arc::new(Unpark::this_thread()));
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(room) = self.poll_room(&mut cx) {
                return room.map(|()| true);
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => std::thread::park(),
                Some(left) if left.is_zero() => return Ok(false),
                Some(left) => std::thread::park_timeout(left),
            }
        }
    }

    /// The body is whole.
    pub fn finish(self) {
        self.end(true);
    }

    /// The body is whole, and these follow; see [`Pieces::with_trailers`].
    pub fn finish_with(self, trailers: Trailers) {
        self.0.0.lock().trailers = trailers;
        self.end(true);
    }

    fn end(&self, finished: bool) {
        let wakers = {
            let mut state = self.0.0.lock();
            state.ended.get_or_insert(finished);
            // The watcher may hold what leads back here.
            [state.receiver.take(), state.watcher.take()]
        };
        let [receiver, watcher] = wakers;
        drop(watcher);
        receiver.into_iter().for_each(Waker::wake);
    }
}

impl Drop for BodySender {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Source for Receiver {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let mut state = self.shared.0.lock();
        let Some(piece) = state.waiting.pop_front() else {
            return match state.ended {
                Some(true) => Poll::Ready(None),
                Some(false) => Poll::Ready(Some(Err(Broken))),
                None => {
                    if !state.receiver.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                        state.receiver = Some(cx.waker().clone());
                    }
                    Poll::Pending
                }
            };
        };
        state.queued -= piece.len();
        let sender = if state.queued <= HIGH_WATER { state.sender.take() } else { None };
        drop(state);
        sender.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(Ok(piece)))
    }

    fn trailers(&mut self) -> Trailers {
        std::mem::take(&mut self.shared.0.lock().trailers)
    }

    fn stops_at_half_close(&self) -> bool {
        self.stops_at_half_close
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let (waiting, wakers) = {
            let mut state = self.shared.0.lock();
            state.gone = true;
            state.queued = 0;
            (std::mem::take(&mut state.waiting), [state.sender.take(), state.watcher.take()])
        };
        drop(waiting);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// Wakes a thread that is parked.
pub(super) struct Unpark(Thread);

impl Unpark {
    pub(super) fn this_thread() -> Self {
        Unpark(std::thread::current())
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Body;

    fn poll(pieces: &mut Pieces) -> Poll<Option<Result<Bytes, Broken>>> {
        pieces.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn pieces_come_in_order_and_end() {
        let (sender, mut pieces) = channel(None, false);
        assert!(poll(&mut pieces).is_pending());
        sender.send("ab".into()).unwrap();
        sender.send("".into()).unwrap();
        sender.send("c".into()).unwrap();
        sender.finish();
        assert_eq!(poll(&mut pieces), Poll::Ready(Some(Ok("ab".into()))));
        assert_eq!(poll(&mut pieces), Poll::Ready(Some(Ok("c".into()))));
        assert_eq!(poll(&mut pieces), Poll::Ready(None));
    }

    #[test]
    fn one_that_was_not_finished_is_broken() {
        let (sender, mut pieces) = channel(None, false);
        sender.send("ab".into()).unwrap();
        drop(sender);
        assert_eq!(poll(&mut pieces), Poll::Ready(Some(Ok("ab".into()))));
        assert_eq!(poll(&mut pieces), Poll::Ready(Some(Err(Broken))));
    }

    #[test]
    fn trailers_come_at_the_end_where_they_were_announced() {
        for announced in [true, false] {
            let (sender, pieces) = channel(Some(2), false);
            let mut pieces = if announced { pieces.with_trailers() } else { pieces };
            let mut trailers = Trailers::default();
            trailers.push(http::header::ETAG, http::HeaderValue::from_static("x")).unwrap();
            sender.send("ab".into()).unwrap();
            sender.finish_with(trailers);
            assert!(poll(&mut pieces).is_ready());
            assert_eq!(poll(&mut pieces), Poll::Ready(None));
            assert_eq!(pieces.trailers().iter().count(), usize::from(announced));
            assert!(pieces.trailers().is_empty());
        }
    }

    #[test]
    fn what_is_here_whole_keeps_its_trailers() {
        let (sender, pieces) = channel(None, false);
        let mut trailers = Trailers::default();
        trailers.push(http::header::ETAG, http::HeaderValue::from_static("x")).unwrap();
        sender.send("ab".into()).unwrap();
        sender.finish_with(trailers);
        let mut body = Body::Pieces(pieces.with_trailers());
        body.settle().unwrap();
        let Body::Pieces(mut pieces) = body else { panic!("they are lost") };
        assert_eq!(poll(&mut pieces), Poll::Ready(Some(Ok("ab".into()))));
        assert_eq!(poll(&mut pieces), Poll::Ready(None));
        assert_eq!(pieces.trailers().iter().count(), 1);
    }

    #[test]
    fn a_length_is_kept_to() {
        let (sender, mut pieces) = channel(Some(3), false);
        sender.send("ab".into()).unwrap();
        sender.send("cd".into()).unwrap();
        assert!(matches!(poll(&mut pieces), Poll::Ready(Some(Ok(_)))));
        assert_eq!(poll(&mut pieces), Poll::Ready(Some(Err(Broken))));
        let (sender, mut pieces) = channel(Some(3), false);
        sender.send("ab".into()).unwrap();
        sender.finish();
        assert!(matches!(poll(&mut pieces), Poll::Ready(Some(Ok(_)))));
        assert_eq!(poll(&mut pieces), Poll::Ready(Some(Err(Broken))));
    }

    #[test]
    fn who_makes_it_waits_for_room_and_hears_when_nobody_wants_it() {
        let (sender, mut pieces) = channel(None, false);
        let mut cx = Context::from_waker(Waker::noop());
        sender.send(vec![0; HIGH_WATER].into()).unwrap();
        assert!(sender.poll_room(&mut cx).is_ready());
        sender.send("x".into()).unwrap();
        assert!(sender.poll_room(&mut cx).is_pending());
        assert_eq!(sender.wait_for_room(Some(Instant::now())), Ok(false));
        assert!(poll(&mut pieces).is_ready());
        assert_eq!(sender.poll_room(&mut cx), Poll::Ready(Ok(())));
        sender.send(vec![0; 2 * HIGH_WATER].into()).unwrap();
        let waits = std::thread::spawn(move || sender.wait_for_room(None));
        drop(pieces);
        assert_eq!(waits.join().unwrap(), Err(Gone));
    }
}
