//! HTTP/1 by hand: the machine that the server itself uses, fed from the pipe.

use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Version};

use super::connection::Connection;
use super::error::StreamError;
use super::pipe::Inbound;
use crate::error::RequestError;
use crate::http::body::Collected;
use crate::http::h1::encode::{self, Persist};
use crate::http::h1::{CONTINUE, Event, Head, Limits, Machine, Wait};
use crate::http::{Body, Request, Response};

/// What is known of the requests on a connection; nothing until one is read.
#[derive(Default)]
pub(super) struct ByHand {
    machine: Option<Box<Machine>>,
    /// The request that is being read.
    head: Option<Box<Head>>,
    body: Collected,
    /// The request that is to be answered.
    asked: Option<Asked>,
    /// No further request is read.
    over: bool,
}

/// What an answer has to know of its request.
struct Asked {
    method: Method,
    version: Version,
    keep_alive: bool,
    /// The callback has written something of its own since.
    by_bytes: bool,
    /// The callback has given a response that cannot be sent.
    failed: bool,
}

impl ByHand {
    /// Whether the body of a request is being read: its bytes are the engine's.
    pub(super) fn is_within_body(&self) -> bool {
        self.head.is_some() && !self.over
    }

    /// What was received and belongs to no request yet.
    pub(super) fn take_unread(&mut self) -> BytesMut {
        self.machine.as_mut().map(|machine| machine.take_unread()).unwrap_or_default()
    }

    /// Notes that the callback writes bytes itself: a request that it has is answered by those.
    pub(super) fn written(&mut self) {
        if let Some(asked) = &mut self.asked {
            asked.by_bytes = true;
        }
    }

    /// Whether a request is being read, so that its end would be one in the middle.
    fn is_within(&self) -> bool {
        self.head.is_some() || self.machine.as_ref().is_some_and(|machine| !machine.is_idle())
    }
}

/// What the next poll of the pipe gives.
enum More {
    Bytes(BytesMut),
    End,
}

fn take_all(inbound: &mut Inbound<'_>, within: bool) -> Option<Result<More, StreamError>> {
    if !inbound.buffer.is_empty() {
        return Some(Ok(More::Bytes(std::mem::take(inbound.buffer))));
    }
    match inbound.over? {
        // An upload may use the whole grace.
        None if inbound.drained && within => None,
        // HTTP's own framing tells whether anything was cut off by an end without close_notify.
        None | Some(StreamError::Truncated) => Some(Ok(More::End)),
        // Between two requests nothing is lost with a client that is gone.
        Some(StreamError::Lost { .. }) if !within => Some(Ok(More::End)),
        Some(error) => Some(Err(error.clone())),
    }
}

impl Connection {
    pub(super) fn poll_request(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Box<Request>>, StreamError>> {
        let mut guard = self.by_hand.lock();
        let hand = &mut *guard;
        let mut now = Instant::now();
        let machine = hand.machine.get_or_insert_with(|| Box::new(Machine::new(Limits::from(self.config()), now)));
        match &hand.asked {
            Some(asked) if !asked.by_bytes => {
                return Poll::Ready(Err(StreamError::Misuse("the request before this one has not been answered yet")));
            }
            Some(asked) => {
                hand.over |= !asked.keep_alive;
                hand.asked = None;
                machine.answered(now);
            }
            None => {}
        }
        if hand.over {
            return Poll::Ready(Ok(None));
        }
        loop {
            let Some(machine) = &mut hand.machine else { return Poll::Ready(Ok(None)) };
            match machine.next_event(now) {
                Err(error) => return Poll::Ready(Err(self.refuse(hand, error))),
                Ok(Event::Request(head)) => {
                    if head.expects_continue && machine.buffered() == 0 {
                        self.pipe.write([Bytes::from_static(CONTINUE)])?;
                    }
                    hand.head = Some(head);
                }
                Ok(Event::Body(data)) => hand.body.push(data),
                Ok(Event::EndOfBody) => return Poll::Ready(self.request(hand)),
                Ok(Event::End { clean: true }) => {
                    hand.over = true;
                    return Poll::Ready(Ok(None));
                }
                Ok(Event::End { clean: false }) => {
                    hand.over = true;
                    self.connection.service.metrics.requests_aborted.add();
                    let why = "the client's side ended within a request".into();
                    return Poll::Ready(Err(StreamError::Lost { why, writing: false }));
                }
                Ok(Event::NeedMore) => {
                    let within = hand.is_within();
                    match self.pipe.poll_read(cx, &mut |inbound| take_all(inbound, within)) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(more)) => {
                            now = Instant::now();
                            let Some(machine) = &mut hand.machine else { return Poll::Ready(Ok(None)) };
                            match more {
                                More::Bytes(bytes) => machine.receive(&bytes, now),
                                More::End => machine.receive_end(),
                            }
                        }
                        Poll::Ready(Err(error)) => {
                            if within {
                                self.connection.service.metrics.requests_aborted.add();
                            }
                            hand.over = true;
                            return Poll::Ready(Err(error));
                        }
                    }
                }
            }
        }
    }

    /// The request that is whole now.
    fn request(&self, hand: &mut ByHand) -> Result<Option<Box<Request>>, StreamError> {
        let Some(head) = hand.head.take() else { return Ok(None) };
        let (method, version, keep_alive) = (head.method.clone(), head.version, head.keep_alive);
        self.connection.service.metrics.request(version);
        hand.asked = Some(Asked { method, version, keep_alive, by_bytes: false, failed: false });
        let body = std::mem::take(&mut hand.body).finish();
        let connection = Some(self.connection.info.clone());
        let request = Box::new(Request { body, connection, ..Request::from(*head) });
        // Who answers is the callback's business; which hosts a connection is for is not: another one may ask for
        // certificates of clients.
        match self.connection.check_host(request.host()) {
            Err(error) => Err(self.refuse(hand, error)),
            Ok(()) => Ok(Some(request)),
        }
    }

    /// Answers a request that cannot be read, and ends the connection.
    fn refuse(&self, hand: &mut ByHand, error: RequestError) -> StreamError {
        hand.over = true;
        (hand.head, hand.body) = (None, Collected::default());
        hand.asked = None;
        let method = hand.machine.as_ref().map_or(Method::GET, |machine| machine.refused_method());
        let response = self.connection.refuse(&error, None);
        // A client that has left cannot be told.
        let _ = self.send(&response, &method, Persist::Close);
        self.pipe.order(|orders| (orders.refused, orders.eof, orders.closed) = (true, true, true));
        StreamError::Request(error)
    }

    /// Until when what is under way of a request has to come; none between two.
    pub(super) fn deadline_of_request(&self) -> Option<Instant> {
        self.waits_within().map(|(deadline, _)| deadline)
    }

    fn waits_within(&self) -> Option<(Instant, Wait)> {
        let hand = self.by_hand.lock();
        let waits = hand.machine.as_ref().and_then(|machine| machine.deadline());
        waits.filter(|(_, wait)| matches!(wait, Wait::Head | Wait::Body))
    }

    /// Refuses a request that did not come in time; none between two, which is nobody's fault.
    pub(super) fn late_request(&self) -> Option<StreamError> {
        let (_, wait) = self.waits_within()?;
        Some(self.refuse(&mut self.by_hand.lock(), wait.refusal()?))
    }

    /// Notes that the response to the request that was read last cannot be sent: where no other follows before the
    /// connection is closed, the client gets a 500, as from handlers.
    pub fn respond_failed(&self) {
        if let Some(asked) = &mut self.by_hand.lock().asked {
            asked.failed = true;
        }
    }

    /// Answers a request whose response could not be sent, where the callback has written nothing itself.
    pub(super) fn answer_failed(&self) {
        let failed = self.by_hand.lock().asked.as_ref().is_some_and(|asked| asked.failed && !asked.by_bytes);
        if failed {
            // A client that has left cannot be told.
            let _ = self.answer(&Response::plain(StatusCode::INTERNAL_SERVER_ERROR));
        }
    }

    pub(super) fn answer(&self, response: &Response) -> Result<(), StreamError> {
        let mut hand = self.by_hand.lock();
        let Some(asked) = hand.asked.take() else {
            return Err(StreamError::Misuse("there is no request to respond to"));
        };
        let draining = !self.connection.service.lifecycle.is_serving();
        let persist = Persist::after(asked.version, asked.keep_alive, response, draining);
        if let Err(error) = self.send(response, &asked.method, persist) {
            hand.asked = Some(Asked { failed: true, ..asked });
            return Err(error);
        }
        if persist == Persist::Close {
            hand.over = true;
            self.write_eof();
        } else if let Some(machine) = &mut hand.machine {
            machine.answered(Instant::now());
        }
        Ok(())
    }

    fn send(&self, response: &Response, method: &Method, persist: Persist) -> Result<(), StreamError> {
        let mut head = BytesMut::new();
        encode::head(&mut head, response, method, persist, false);
        let body = match &response.body {
            _ if response.is_bodiless(method) => Bytes::new(),
            _ if response.upgrade.is_some() => {
                return Err(StreamError::Misuse("a WebSocket is no response by hand"));
            }
            Body::Whole(body) => body.clone(),
            Body::Pieces(_) | Body::File(_) => {
                return Err(StreamError::Misuse("a response by hand has its body whole"));
            }
        };
        self.pipe.write([head.freeze(), body])?;
        self.connection.service.metrics.response(response.status);
        Ok(())
    }
}
