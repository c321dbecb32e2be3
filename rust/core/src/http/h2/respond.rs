//! The sending half of a request's stream.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::SendResponse;
use http::StatusCode;

use crate::locks::Mutex;

/// Where the answer goes: its owner's alone, or shared with the task that reads the body, which says `100 Continue` when the
/// handler asks for it and not after the answer.
#[derive(Debug)]
pub(super) enum Respond {
    Own(SendResponse<Bytes>),
    Shared(Shared),
}

type Shared = Arc<Mutex<Option<Watched>>>;

/// With whoever is to be woken by a reset: h2 keeps one waker for each stream, and every look takes its place.
#[derive(Debug)]
pub(super) struct Watched {
    respond: SendResponse<Bytes>,
    waker: Waker,
}

impl Respond {
    /// The body is wanted: says so to a client that waits for it (RFC 9110 section 10.1.1).
    pub(super) fn go_on(&mut self) {
        match self {
            Respond::Own(respond) => say_continue(respond, Waker::noop()),
            Respond::Shared(shared) => {
                shared.lock().iter_mut().for_each(|watched| say_continue(&mut watched.respond, &watched.waker));
            }
        }
    }

    /// The same, to be said by somebody else, as long as there is no answer.
    pub(super) fn leave_to_say(self) -> (Self, Continue) {
        match self {
            Respond::Own(respond) => {
                let watched = Watched { respond, waker: Waker::noop().clone() };
                Respond::Shared(Arc::new(Mutex::new(Some(watched)))).leave_to_say()
            }
            Respond::Shared(shared) => (Respond::Shared(shared.clone()), Continue(shared)),
        }
    }

    /// Ready when the client has reset the stream, or left.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Respond::Own(respond) => respond.poll_reset(cx).map(drop),
            Respond::Shared(shared) => shared.lock().as_mut().map_or(Poll::Ready(()), |watched| {
                watched.waker.clone_from(cx.waker());
                watched.respond.poll_reset(cx).map(drop)
            }),
        }
    }

    /// For the answer.
    pub(super) fn take(self) -> Option<SendResponse<Bytes>> {
        match self {
            Respond::Own(respond) => Some(respond),
            Respond::Shared(shared) => shared.lock().take().map(|watched| watched.respond),
        }
    }
}

/// A client that waits for `100 Continue`.
#[derive(Debug)]
pub(super) struct Continue(Shared);

impl Continue {
    pub(super) fn say(self) {
        Respond::Shared(self.0).go_on();
    }
}

fn say_continue(respond: &mut SendResponse<Bytes>, waker: &Waker) {
    // h2 would send it on a stream that was reset, too.
    if respond.poll_reset(&mut Context::from_waker(waker)).is_ready() {
        return;
    }
    let mut head = http::Response::new(());
    *head.status_mut() = StatusCode::CONTINUE;
    // An error means that the client has left.
    let _ = respond.send_informational(head);
}
