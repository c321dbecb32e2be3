//! Frames that ask for nothing: how many a client may send. h2 bounds some kinds (resets before a stream is looked at,
//! resets that are provoked, CONTINUATION, small and empty DATA), but answers PING and SETTINGS, and reads PRIORITY,
//! WINDOW_UPDATE, resets of streams that a handler has and kinds that nobody knows, for as long as they come.

use std::time::{Duration, Instant};

use super::frames::{DATA, Frame, HEADERS, RST_STREAM, WINDOW_UPDATE};

/// What a client may owe at most, and has at the beginning.
const MOST: u32 = 800;
/// What comes back with time: for PINGs that keep a connection alive, or measure it.
const A_SECOND: u32 = 20;
const BACK: Duration = Duration::from_millis(1_000 / A_SECOND as u64);
/// What a head costs, which has to be decoded.
const HEAD: u32 = 3;
/// What a reset costs. A handler may have begun by then, so that both are dearer than what a request earns.
const RESET: u32 = 3;
/// What a request earns whose head is in order: it pays for itself and for one frame of priority.
const REQUEST: u32 = 4;
/// What some of a response earns that was sent: a client opens two windows for each frame that it takes.
const RESPONSE: u32 = 4;
/// What a frame of a WebSocket earns that was sent, however small: its client opens two windows for it. A client that makes
/// a handler or the server say something for each of its own gains nothing by it.
const SPOKEN: u32 = 2;
/// Frames of less than this earn nothing: a client that opens its window byte by byte shall not be paid for it (Data
/// Dribble, CVE-2019-9511).
const SMALL: usize = 256;
/// Unless they are a response's last. Less than a head costs, so that requests which are refused are not free.
const END: u32 = 1;

/// What a client has left.
#[derive(Debug)]
pub(super) struct Credit {
    left: u32,
    /// Earned beyond the most, for WINDOW_UPDATEs alone: to a client with a window of 16 MiB go a thousand frames before it
    /// opens the windows for the first of them.
    windows: u32,
    /// Up to when time has been paid for.
    paid: Instant,
}

impl Credit {
    pub(super) fn new(now: Instant) -> Self {
        Credit { left: MOST, windows: 0, paid: now }
    }

    /// A frame came.
    pub(super) fn received(&mut self, frame: Frame, now: Instant) {
        let cost = match frame.kind {
            WINDOW_UPDATE if self.windows > 0 => {
                self.windows -= 1;
                return;
            }
            DATA => u32::from(frame.length == 0 && !frame.ends_stream()),
            HEADERS => HEAD,
            RST_STREAM => RESET,
            _ => 1,
        };
        if self.left < MOST / 2 {
            self.pay_for_time(now);
        }
        self.left = self.left.saturating_sub(cost);
    }

    /// A frame left.
    pub(super) fn sent(&mut self, frame: Frame) {
        match frame.kind {
            DATA if frame.length >= SMALL => {
                let beyond = (self.left + RESPONSE).saturating_sub(MOST);
                self.windows = self.windows.saturating_add(beyond);
                self.earn(RESPONSE);
            }
            DATA if frame.ends_stream() => self.earn(END),
            _ => {}
        }
    }

    /// A request was in order.
    pub(super) fn asked(&mut self) {
        self.earn(REQUEST);
    }

    /// A frame of a WebSocket was sent.
    pub(super) fn spoke(&mut self) {
        self.earn(SPOKEN);
    }

    /// Whether it was too much.
    pub(super) fn is_used_up(&self) -> bool {
        self.left == 0
    }

    fn earn(&mut self, more: u32) {
        // What is used up stays so: the connection is being ended.
        if self.left > 0 {
            self.left = (self.left + more).min(MOST);
        }
    }

    fn pay_for_time(&mut self, now: Instant) {
        let steps = now.saturating_duration_since(self.paid).as_millis() / BACK.as_millis();
        self.paid += BACK * u32::try_from(steps).unwrap_or(u32::MAX).min(MOST);
        self.earn(u32::try_from(steps).unwrap_or(MOST).min(MOST));
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::Scan;
    use super::*;

    fn frame(kind: u8, length: u16) -> Frame {
        let mut found = None;
        Scan::new(0).feed(&[0, (length >> 8) as u8, length as u8, kind, 0, 0, 0, 0, 1], |frame| found = Some(frame));
        found.unwrap()
    }

    const PING: u8 = 6;

    #[test]
    fn a_flood_uses_it_up_and_a_ping_now_and_then_does_not() {
        let now = Instant::now();
        let mut credit = Credit::new(now);
        for n in 0..MOST {
            assert!(!credit.is_used_up(), "{n}");
            credit.received(frame(PING, 8), now);
        }
        assert!(credit.is_used_up());
        credit.asked();
        assert!(credit.is_used_up(), "for good");

        let mut credit = Credit::new(now);
        for n in 0..10_000 {
            credit.received(frame(PING, 8), now + Duration::from_millis(100) * n);
            assert!(!credit.is_used_up(), "{n}");
        }
    }

    #[test]
    fn requests_and_responses_pay_for_themselves_and_resets_do_not() {
        let now = Instant::now();
        let mut credit = Credit::new(now);
        for _ in 0..10_000 {
            credit.received(frame(HEADERS, 9), now);
            credit.asked();
            for _ in 0..10 {
                credit.sent(frame(DATA, 256));
                credit.received(frame(WINDOW_UPDATE, 4), now);
                credit.received(frame(WINDOW_UPDATE, 4), now);
            }
        }
        assert!(!credit.is_used_up());
        for _ in 0..MOST {
            credit.received(frame(HEADERS, 9), now);
            credit.asked();
            credit.received(frame(RST_STREAM, 4), now);
        }
        assert!(credit.is_used_up());
    }

    #[test]
    fn what_was_sent_in_one_burst_is_acknowledged_in_another() {
        let now = Instant::now();
        let mut credit = Credit::new(now);
        let updates = 1_000 * RESPONSE;
        (0..1_000).for_each(|_| credit.sent(frame(DATA, 16_384)));
        (0..updates + MOST - 1).for_each(|_| credit.received(frame(WINDOW_UPDATE, 4), now));
        assert!(!credit.is_used_up());
        credit.received(frame(WINDOW_UPDATE, 4), now);
        assert!(credit.is_used_up(), "and no more than that");

        let mut credit = Credit::new(now);
        (0..1_000).for_each(|_| credit.sent(frame(DATA, 16_384)));
        (0..MOST).for_each(|_| credit.received(frame(PING, 8), now));
        assert!(credit.is_used_up(), "it pays for nothing else");
    }

    #[test]
    fn windows_that_open_byte_by_byte_are_not_paid_for() {
        let now = Instant::now();
        let mut credit = Credit::new(now);
        for _ in 0..MOST {
            credit.received(frame(WINDOW_UPDATE, 4), now);
            credit.sent(frame(DATA, 1));
        }
        assert!(credit.is_used_up());
    }
}
