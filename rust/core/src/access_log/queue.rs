//! Lines on their way from those who make them to the one who writes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::place::Place;
use crate::locks::{Condvar, Mutex};

/// The most bytes of lines that wait. Beside them the writer has as many again.
const CAPACITY: usize = 1 << 20;
/// The writer gathers what comes for so long, so that a busy server pays for one write instead of thousands,
const GATHER: Duration = Duration::from_millis(50);
/// but no more than this: what stays in a core's cache until it is written costs less than what does not.
const BATCH: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// For the writer.
    more: Condvar,
    /// For who waits for the writer.
    taken: Condvar,
}

#[derive(Debug)]
struct Waiting {
    lines: Vec<u8>,
    /// Lines that found no room and were not asked for yet.
    dropped: u64,
    /// A new place, which the writer has not taken yet.
    place: Option<Place>,
    /// There is a writer, or one is about to be.
    begun: bool,
    /// The writer waits for the first line.
    idle: bool,
    closed: bool,
}

/// What the writer gets.
pub(super) struct Batch {
    pub(super) lines: Vec<u8>,
    pub(super) place: Option<Place>,
    /// Nothing follows.
    pub(super) last: bool,
}

impl Queue {
    pub(super) fn new(place: Place) -> Arc<Self> {
        let waiting =
            Waiting { lines: Vec::new(), dropped: 0, place: Some(place), begun: false, idle: false, closed: false };
        Arc::new(Queue { waiting: Mutex::new(waiting), more: Condvar::default(), taken: Condvar::default() })
    }

    /// Whether a writer is to be started: there is none yet.
    pub(super) fn begin(&self) -> bool {
        let mut waiting = self.waiting.lock();
        !std::mem::replace(&mut waiting.begun, true)
    }

    pub(super) fn did_not_begin(&self) {
        self.waiting.lock().begun = false;
    }

    /// Adds a line, where there is room for it.
    pub(super) fn push(&self, line: &[u8]) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return false;
        }
        if waiting.lines.len() + line.len() > CAPACITY {
            waiting.dropped += 1;
            return false;
        }
        waiting.lines.extend_from_slice(line);
        // A call of the kernel, which only the first line of many needs, and the one that makes a batch whole.
        let wake = waiting.idle || (waiting.lines.len() > BATCH && waiting.lines.len() - line.len() <= BATCH);
        waiting.idle = false;
        drop(waiting);
        if wake {
            self.more.notify_one();
        }
        true
    }

    /// Waits for lines, and for those that follow them shortly. They come in place of `spare`, which is empty, so that a busy
    /// log needs no new memory; one with nothing to do keeps none.
    pub(super) fn take(&self, mut spare: Vec<u8>) -> Batch {
        let mut waiting = self.waiting.lock();
        if waiting.lines.is_empty() {
            spare = Vec::new();
            waiting.lines = Vec::new();
        }
        while waiting.lines.is_empty() && waiting.place.is_none() && !waiting.closed {
            waiting.idle = true;
            waiting = self.more.wait(waiting);
        }
        waiting.idle = false;
        let until = Instant::now() + GATHER;
        while waiting.place.is_none() && !waiting.closed && waiting.lines.len() <= BATCH {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self.more.wait_for(waiting, left).0;
        }
        let batch = Batch {
            lines: std::mem::replace(&mut waiting.lines, spare),
            place: waiting.place.take(),
            last: waiting.closed,
        };
        drop(waiting);
        self.taken.notify_all();
        batch
    }

    /// How many lines found no room since this was asked last.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.waiting.lock().dropped)
    }

    /// Waits before what failed is tried again; a new place, where there is one by then, and whether the log is closed.
    pub(super) fn pause(&self, time: Duration) -> (Option<Place>, bool) {
        let until = Instant::now() + time;
        let mut waiting = self.waiting.lock();
        while waiting.place.is_none() && !waiting.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self.more.wait_for(waiting, left).0;
        }
        let (place, closed) = (waiting.place.take(), waiting.closed);
        drop(waiting);
        self.taken.notify_all();
        (place, closed)
    }

    /// Has what is written from now on written to another place, and waits for the writer to have it, for a while.
    pub(super) fn reopen(&self, place: Place, patience: Duration) {
        let until = Instant::now() + patience;
        let mut waiting = self.waiting.lock();
        waiting.place = Some(place);
        self.more.notify_one();
        while waiting.begun && !waiting.closed && waiting.place.is_some() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = self.taken.wait_for(waiting, left).0;
        }
    }

    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.more.notify_all();
        self.taken.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_dropped_and_counted() {
        let queue = Queue::new(Place::Program);
        let line = [b'a'; 1000];
        let pushed = (0..2000).filter(|_| queue.push(&line)).count();
        assert_eq!(pushed, CAPACITY / line.len());
        let batch = queue.take(Vec::new());
        assert_eq!((batch.lines.len(), queue.take_dropped()), (pushed * line.len(), 2000 - pushed as u64));
        assert!(batch.place.is_some() && !batch.last);
        assert!(queue.push(&line));
        queue.close();
        assert!(!queue.push(&line));
        let batch = queue.take(Vec::new());
        assert_eq!((batch.lines.len(), queue.take_dropped(), batch.last), (line.len(), 0, true));
    }
}
