//! The sending half of a request's stream.

use std::sync::Arc;
use std::task::{Context, Poll};

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

type Shared = Arc<Mutex<Option<SendResponse<Bytes>>>>;

impl Respond {
    /// The body is wanted: says so to a client that waits for it (RFC 9110 section 10.1.1).
    pub(super) fn go_on(&mut self) {
        match self {
            Respond::Own(respond) => say_continue(respond),
            Respond::Shared(shared) => shared.lock().iter_mut().for_each(say_continue),
        }
    }

    /// The same, to be said by somebody else, as long as there is no answer.
    pub(super) fn leave_to_say(self) -> (Self, Continue) {
        match self {
            Respond::Own(respond) => Respond::Shared(Arc::new(Mutex::new(Some(respond)))).leave_to_say(),
            Respond::Shared(shared) => (Respond::Shared(shared.clone()), Continue(shared)),
        }
    }

    /// Ready when the client has reset the stream, or left.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Respond::Own(respond) => respond.poll_reset(cx).map(drop),
            Respond::Shared(shared) => {
                shared.lock().as_mut().map_or(Poll::Ready(()), |respond| respond.poll_reset(cx).map(drop))
            }
        }
    }

    /// For the answer.
    pub(super) fn take(self) -> Option<SendResponse<Bytes>> {
        match self {
            Respond::Own(respond) => Some(respond),
            Respond::Shared(shared) => shared.lock().take(),
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

fn say_continue(respond: &mut SendResponse<Bytes>) {
    // h2 would send it on a stream that was reset, too.
    if respond.poll_reset(&mut Context::from_waker(std::task::Waker::noop())).is_ready() {
        return;
    }
    let mut head = http::Response::new(());
    *head.status_mut() = StatusCode::CONTINUE;
    // An error means that the client has left.
    let _ = respond.send_informational(head);
}
