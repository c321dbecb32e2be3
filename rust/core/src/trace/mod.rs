//! What each connection does, step by step, for people and tests. Where nobody listens it costs a look at a pointer.
//!
//! [`event`] is the list of what can happen. A connection has a [`Trace`], through which its stages tell; records wait in a
//! bounded [`Queue`] for a thread that hands them on, so that no I/O thread waits for whoever reads them. The last record of a
//! connection is [`Event::Closed`]: what a handler still does for one that is gone is not told.

mod event;
mod frames;
mod queue;
mod text;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{Method, Version};

pub(crate) use event::cut;
pub use event::{EVENTS, Event, Value};
pub(crate) use frames::Frames;
pub use queue::{Queue, Record};

use crate::connection::Address;
use crate::error::RequestError;
use crate::locks::Mutex;
use crate::record::Details;

/// Where a connection tells what it does; nowhere, where nobody listens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(Option<Arc<Traced>>);

#[derive(Debug)]
struct Traced {
    queue: Arc<Queue>,
    connection: u64,
    accepted: Instant,
    /// Held while a record is queued, so that those of one connection stand in the order of their times.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that have begun and not ended.
    open: Vec<Open>,
    /// The highest number of any that has begun.
    latest: u32,
    /// That the connection heeds the server's end was told.
    draining: bool,
    /// Bytes that went either way, where they are a callback's.
    carried: Option<(u64, u64)>,
    closed: bool,
}

/// A request that has begun and not ended.
#[derive(Debug)]
struct Open {
    stream: u32,
    /// The status of its response.
    status: Option<u16>,
    /// Its body is being read.
    body: bool,
}

impl Trace {
    /// Tells that something happened to the connection.
    #[inline]
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(traced) = &self.0 {
            traced.tell(None, event());
        }
    }

    /// For a request on it.
    #[inline]
    pub(crate) fn of(&self, stream: u32) -> StreamTrace<'_> {
        StreamTrace { trace: self, stream }
    }

    /// Notes how many bytes went either way between the client and a callback.
    pub(crate) fn carried(&self, received: u64, sent: u64) {
        if let Some(traced) = &self.0 {
            traced.state.lock().carried = Some((received, sent));
        }
    }

    /// Whether anybody listens.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

/// Where a request tells what becomes of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamTrace<'a> {
    trace: &'a Trace,
    stream: u32,
}

impl StreamTrace<'_> {
    #[inline]
    pub(crate) fn tell(self, event: impl FnOnce() -> Event) {
        if let Some(traced) = &self.trace.0 {
            traced.tell(Some(self.stream), event());
        }
    }

    pub(crate) fn refused(self, error: &RequestError) {
        self.tell(|| Event::Refused {
            why: error.refusal.label(),
            status: error.refusal.status(),
            message: cut(&error.message),
        });
    }
}

impl Traced {
    fn tell(&self, stream: Option<u32>, event: Event) {
        let mut state = self.state.lock();
        if state.closed || !state.follow(stream, &event) {
            return;
        }
        self.push(stream, event);
    }

    fn close(&self, why: &'static str) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.closed, true) {
            return;
        }
        let outcome = if why == "shutdown" { why } else { "aborted" };
        for Open { stream, status, .. } in std::mem::take(&mut state.open) {
            self.push(Some(stream), Event::RequestEnded { status, received: None, sent: None, outcome });
        }
        let (received, sent) = state.carried.unzip();
        self.push(None, Event::Closed { why, received, sent });
    }

    fn push(&self, stream: Option<u32>, event: Event) {
        self.queue.push(Record {
            connection: Some(self.connection),
            stream,
            elapsed: self.accepted.elapsed().as_secs_f64(),
            time: SystemTime::now(),
            event,
        });
    }
}

impl State {
    /// Notes what an event says. False where it is not to be told: once is enough, and nothing comes after an end.
    fn follow(&mut self, stream: Option<u32>, event: &Event) -> bool {
        let Some(stream) = stream else {
            return !matches!(event, Event::Draining {}) || !std::mem::replace(&mut self.draining, true);
        };
        let Some(at) = self.open.iter().position(|open| open.stream == stream) else {
            return match event {
                // Of one that is refused there may be no head. Of one that has ended the rest of the body may be, which nobody
                // wants to know.
                Event::Request { .. } | Event::Refused { .. } if stream > self.latest => {
                    self.latest = stream;
                    self.open.push(Open { stream, status: None, body: false });
                    true
                }
                // What nobody wants any more of a request may be reset, and so is one that never was any.
                Event::Reset { .. } => true,
                _ => false,
            };
        };
        let open = &mut self.open[at];
        match event {
            Event::RequestEnded { .. } => drop(self.open.swap_remove(at)),
            Event::Response { status, .. } => open.status = Some(*status),
            Event::BodyBegun { .. } => open.body = true,
            Event::BodyEnded { .. } => return std::mem::take(&mut open.body),
            _ => {}
        }
        true
    }
}

/// A connection that is told of: its last record is made when this is dropped, however its end comes about.
pub(crate) struct Opened {
    pub(crate) trace: Trace,
    /// Why it ends.
    pub(crate) why: &'static str,
    /// The number of the connection.
    pub(crate) id: u64,
}

impl Opened {
    /// A connection that was just accepted.
    pub(crate) fn accepted(queue: Option<&Arc<Queue>>, id: u64, peer: &Address, local: &Address, tls: bool) -> Self {
        let trace = Trace(queue.map(|queue| {
            let (accepted, state) = (Instant::now(), Mutex::default());
            Arc::new(Traced { queue: queue.clone(), connection: id, accepted, state })
        }));
        trace.tell(|| Event::Accepted { peer: peer.to_string().into(), local: local.to_string().into(), tls });
        Opened { trace, why: "shutdown", id }
    }

    /// Ends it, for that reason.
    pub(crate) fn close(mut self, why: &'static str) {
        self.why = why;
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(traced) = &self.trace.0 {
            traced.close(self.why);
        }
    }
}

/// What the head of a request says.
pub(crate) fn asked(method: &Method, version: Version, details: &Details) -> Event {
    let text = |bytes: &[u8]| cut(&String::from_utf8_lossy(bytes));
    Event::Request {
        method: cut(method.as_str()),
        target: text(&details.target),
        version: match version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
        host: text(details.host().unwrap_or_default()),
    }
}

/// A connection that was not let in.
pub(crate) fn turned_away(queue: Option<&Arc<Queue>>, peer: &Address, local: &Address, why: &'static str) {
    if let Some(queue) = queue {
        let event = Event::TurnedAway { peer: peer.to_string().into(), local: local.to_string().into(), why };
        queue.push(Record { connection: None, stream: None, elapsed: 0.0, time: SystemTime::now(), event });
    }
}

/// One call of a handler, told to whoever follows its request.
#[derive(Debug)]
pub(crate) struct Call {
    trace: Trace,
    stream: u32,
    handed: Instant,
    begun: Option<Instant>,
}

impl Call {
    /// It waits for its turn from now on. None where nobody listens.
    pub(crate) fn handed(trace: &Trace, stream: u32) -> Option<Box<Self>> {
        let call = || Box::new(Call { trace: trace.clone(), stream, handed: Instant::now(), begun: None });
        trace.is_on().then(call)
    }

    pub(crate) fn begins(&mut self, place: &'static str) {
        let now = Instant::now();
        self.begun = Some(now);
        let waited = now.saturating_duration_since(self.handed).as_secs_f64();
        self.trace.of(self.stream).tell(|| Event::HandlerBegun { place, waited });
    }

    pub(crate) fn answered(mut self, status: u16) {
        if self.begun.is_none() {
            // It was called where the request was read, and answered at once.
            self.begins("core");
        }
        let took = self.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        self.trace.of(self.stream).tell(|| Event::HandlerAnswered { status, took });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(queue: &Arc<Queue>) -> Opened {
        let address = Address::Unix(None);
        Opened::accepted(Some(queue), 7, &address, &address, false)
    }

    fn names(queue: &Queue) -> Vec<&'static str> {
        queue.take().into_iter().flatten().map(|record| record.event.name()).collect()
    }

    fn asked() -> Event {
        Event::Request { method: "GET".into(), target: "/".into(), version: "HTTP/2", host: "a".into() }
    }

    #[test]
    fn nothing_follows_the_end_of_a_connection_and_every_request_has_one() {
        let queue = Arc::new(Queue::new());
        let opened = opened(&queue);
        let trace = opened.trace.clone();
        trace.of(1).tell(asked);
        trace.of(3).tell(asked);
        trace.of(3).tell(|| Event::Response { status: 200, length: None });
        let ended = || Event::RequestEnded { status: Some(200), received: Some(0), sent: Some(2), outcome: "whole" };
        trace.of(3).tell(ended);
        trace.of(3).tell(ended);
        trace.of(3).tell(|| Event::HandlerAnswered { status: 200, took: 0.0 });
        trace.of(3).refused(&RequestError::new(crate::error::Refusal::BodyBytes, "too late"));
        drop(opened);
        trace.tell(|| Event::Draining {});
        trace.of(5).tell(asked);
        let expected = ["accepted", "request", "request", "response", "request_ended", "request_ended", "closed"];
        assert_eq!(names(&queue), expected);
    }

    #[test]
    fn nobody_who_listens_is_told_nothing() {
        let address = Address::Unix(None);
        let opened = Opened::accepted(None, 1, &address, &address, false);
        opened.trace.tell(|| unreachable!());
        opened.trace.of(1).tell(|| unreachable!());
        assert!(Call::handed(&opened.trace, 1).is_none());
    }
}
