//! A request's body that its handler takes while it comes.

use std::time::Instant;

use bytes::BytesMut;

use super::{CONTINUE, Event, Machine};
use crate::error::RequestError;
use crate::http::body::{Cut, Feeder};

/// A body between the machine and a handler.
pub(super) struct Upload {
    pub(super) feeder: Feeder,
    /// The client waits for `100 Continue`, which the handler's first question brings about (RFC 9110 section 10.1.1).
    pub(super) expects: bool,
    /// Nothing was read for want of room, or of a handler that asks: not the client's fault.
    stalled: bool,
    /// It cannot be read further.
    pub(super) broken: bool,
}

/// What became of it.
pub(super) enum Pumped {
    /// More is to be read.
    Hungry,
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
    pub(super) fn new(feeder: Feeder, expects: bool) -> Self {
        Upload { feeder, expects, stalled: true, broken: false }
    }

    /// Gives the handler what is here, as far as there is room.
    pub(super) fn pump(&mut self, machine: &mut Machine, out: &mut BytesMut) -> Pumped {
        if self.broken {
            return Pumped::Full;
        }
        let now = Instant::now();
        while self.feeder.has_room() && (self.feeder.is_asked() || !self.expects) {
            if std::mem::take(&mut self.stalled) {
                machine.resume(now);
            }
            match machine.next_event(now) {
                Ok(Event::Body(data)) => {
                    self.expects = false;
                    self.feeder.push(data);
                }
                Ok(Event::EndOfBody) => {
                    self.feeder.end(Ok(()));
                    return Pumped::Whole;
                }
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

    /// Tells the handler that no more of it is read, and why.
    pub(super) fn refuse(&mut self, error: &RequestError) {
        self.broken = true;
        self.feeder.end(Err(Cut::Refused(error.clone())));
    }
}
