//! A request's body that its handler takes while it comes.

use std::time::Instant;

use bytes::BytesMut;

use super::{CONTINUE, Event, Machine};
use crate::error::RequestError;
use crate::http::body::{Cut, Feeder};
use crate::http::coding::{Decoding, Step, TURN};

/// A body that its handler takes as it comes.
pub(super) struct Streamed {
    /// The client waits for `100 Continue`.
    pub(super) expects: bool,
    /// It has content codings that are to be undone.
    pub(super) decoding: Option<Box<Decoding>>,
}

/// A body between the machine and a handler.
pub(super) struct Upload {
    pub(super) feeder: Feeder,
    /// The client waits for `100 Continue`, which the handler's first question brings about (RFC 9110 section 10.1.1).
    pub(super) expects: bool,
    decoding: Option<Box<Decoding>>,
    /// All of it was read, though not all is decoded.
    pub(super) ended: bool,
    /// Nothing was read for want of room, or of a handler that asks: not the client's fault.
    stalled: bool,
    /// It cannot be read further.
    pub(super) broken: bool,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// More is to be read.
    Hungry,
    /// There is more to decode, after a turn for others.
    Turn,
    /// The handler has its turn.
    Full,
    /// It is whole.
    Whole,
    /// The client has ended its side in the middle.
    Left,
    /// It must not be read further; the handler is told.
    Refused(RequestError),
}

impl Upload {
    pub(super) fn new(feeder: Feeder, streamed: Streamed) -> Self {
        let Streamed { expects, decoding } = streamed;
        Upload { feeder, expects, decoding, ended: false, stalled: true, broken: false }
    }

    /// Gives the handler what is here, as far as there is room.
    pub(super) fn pump(&mut self, machine: &mut Machine, out: &mut BytesMut) -> Pumped {
        if self.broken {
            return Pumped::Full;
        }
        let now = Instant::now();
        let mut steps = 0;
        while self.feeder.has_room() && (self.feeder.is_asked() || !self.expects) {
            if std::mem::take(&mut self.stalled) {
                machine.resume(now);
            }
            match self.decoding.as_mut().map_or(Ok(Step::Hungry), |decoding| decoding.step()) {
                Ok(Step::Hungry) => {}
                Ok(Step::Whole) => return self.whole(),
                Ok(step) => {
                    if let Step::Data(data) = step {
                        self.feeder.push(data);
                    }
                    steps += 1;
                    if steps == TURN {
                        return Pumped::Turn;
                    }
                    continue;
                }
                Err(error) => {
                    self.refuse(&error);
                    return Pumped::Refused(error);
                }
            }
            match machine.next_event(now) {
                Ok(Event::Body(data)) => {
                    self.expects = false;
                    match &mut self.decoding {
                        None => self.feeder.push(data),
                        Some(decoding) => decoding.push(data),
                    }
                }
                Ok(Event::EndOfBody) => match &mut self.decoding {
                    None => return self.whole(),
                    Some(decoding) => {
                        decoding.end();
                        self.ended = true;
                    }
                },
                Ok(Event::End { .. }) => return Pumped::Left,
                Ok(Event::NeedMore | Event::Request(_)) => {
                    if std::mem::take(&mut self.expects) {
                        out.extend_from_slice(CONTINUE);
                    }
                    return Pumped::Hungry;
                }
                Err(error) => {
                    self.refuse(&error);
                    return Pumped::Refused(error);
                }
            }
        }
        self.stalled = true;
        Pumped::Full
    }

    fn whole(&self) -> Pumped {
        self.feeder.end(Ok(()));
        Pumped::Whole
    }

    /// Tells the handler that no more of it is read, and why.
    pub(super) fn refuse(&mut self, error: &RequestError) {
        self.broken = true;
        self.feeder.end(Err(Cut::Refused(error.clone())));
    }
}
