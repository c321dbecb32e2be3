//! Records on their way from I/O threads to whoever reads them.

use std::collections::VecDeque;
use std::time::SystemTime;

use super::Event;
use crate::locks::{Condvar, Mutex};

/// An event, with where and when it happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The number of the connection; none for what happens before there is one.
    pub connection: Option<u64>,
    /// The request: the stream of HTTP/2; in HTTP/1 the first on its connection is 1. None for what is the connection's.
    pub stream: Option<u32>,
    /// Seconds since the connection was accepted.
    pub elapsed: f64,
    /// When it happened.
    pub time: SystemTime,
    /// What happened.
    pub event: Event,
}

/// How many records may wait. Whoever takes them may have as many in hand.
const MOST: usize = 10_000;

/// A bounded queue: those who add never wait, and what there is no room for is counted.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Record>,
    /// What came after the last that waits.
    dropped: u64,
    closed: bool,
}

impl Queue {
    /// An empty one.
    pub fn new() -> Self {
        Queue::default()
    }

    pub(crate) fn push(&self, record: Record) {
        let mut state = self.state.lock();
        // Once some are missing nothing is added until those that wait are taken: the gap is one, and it is known where.
        if state.waiting.len() >= MOST || state.dropped > 0 {
            state.dropped += 1;
            return;
        }
        state.waiting.push_back(record);
        let first = state.waiting.len() == 1;
        drop(state);
        if first {
            self.more.notify_one();
        }
    }

    /// Waits for records and takes all there are, [`Event::Dropped`] after them where more came; none when it is closed and
    /// empty.
    pub fn take(&self) -> Option<VecDeque<Record>> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.closed {
            state = self.more.wait(state);
        }
        let mut taken = std::mem::take(&mut state.waiting);
        let records = std::mem::take(&mut state.dropped);
        drop(state);
        if records > 0 {
            let event = Event::Dropped { records };
            taken.push_back(Record { connection: None, stream: None, elapsed: 0.0, time: SystemTime::now(), event });
        }
        (!taken.is_empty()).then_some(taken)
    }

    /// Lets [`Queue::take`] end with what is there.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.more.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn record(connection: u64) -> Record {
        let event = Event::Draining {};
        Record { connection: Some(connection), stream: None, elapsed: 0.0, time: SystemTime::UNIX_EPOCH, event }
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_where_it_is_missing() {
        let queue = Queue::new();
        (0..MOST as u64 + 7).for_each(|n| queue.push(record(n)));
        let taken = queue.take().unwrap();
        assert_eq!(taken.len(), MOST + 1);
        assert_eq!(taken[MOST - 1].connection, Some(MOST as u64 - 1));
        assert_eq!(taken[MOST].event, Event::Dropped { records: 7 });
        queue.push(record(1));
        queue.close();
        assert_eq!(queue.take().unwrap().len(), 1);
        assert!(queue.take().is_none());
    }

    #[test]
    fn whoever_waits_is_woken() {
        let queue = Arc::new(Queue::new());
        let taking = std::thread::spawn({
            let queue = queue.clone();
            move || std::iter::from_fn(|| queue.take()).map(|taken| taken.len()).sum::<usize>()
        });
        for n in 0..1_000 {
            queue.push(record(n));
            if n % 100 == 0 {
                std::thread::yield_now();
            }
        }
        queue.close();
        assert_eq!(taking.join().unwrap(), 1_000);
    }
}
