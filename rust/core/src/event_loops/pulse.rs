//! Whether the event loops turn: each is given something to do, and it is seen when it was done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{EventLoop, EventLoops};
use crate::locks::Mutex;

/// Feels the pulse of a server's loops. It costs nothing while nobody asks.
pub(crate) struct Pulse {
    clock: Instant,
    loops: Mutex<Vec<Felt>>,
}

/// One loop.
struct Felt {
    name: String,
    one: Arc<EventLoop>,
    beat: Arc<Beat>,
}

#[derive(Default)]
struct Beat {
    /// When it was asked, in nanoseconds of the clock, plus one; 0 when it has answered.
    asked: AtomicU64,
    /// How long the last answer took.
    lag: AtomicU64,
}

/// What is known of one loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turning {
    /// The name of its first thread.
    pub(crate) name: String,
    /// How long it has been waited for since it was asked, where it has not answered.
    pub(crate) waiting: Option<Duration>,
    /// How long its last answer took.
    pub(crate) lag: Duration,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Pulse { clock: Instant::now(), loops: Mutex::default() }
    }

    /// Watches these, until [`Pulse::forget`].
    pub(crate) fn watch(&self, loops: &EventLoops) {
        let felt = |(number, one): (usize, &Arc<EventLoop>)| Felt {
            name: super::thread_name(number),
            one: one.clone(),
            beat: Arc::default(),
        };
        *self.loops.lock() = loops.loops.iter().enumerate().map(felt).collect();
    }

    /// Lets go of the loops.
    pub(crate) fn forget(&self) {
        self.loops.lock().clear();
    }

    /// Asks every loop that has answered the last time; called again and again, it is known of each when it stops.
    pub(crate) fn feel(&self) {
        for Felt { one, beat, .. } in &*self.loops.lock() {
            let now = self.now();
            if beat.asked.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire).is_err() {
                continue;
            }
            let (beat, clock) = (beat.clone(), self.clock);
            one.spawn(async move {
                let lag = (clock.elapsed().as_nanos() as u64 + 1).saturating_sub(now);
                beat.lag.store(lag, Ordering::Release);
                beat.asked.store(0, Ordering::Release);
            });
        }
    }

    /// What is known by now.
    pub(crate) fn tell(&self) -> Vec<Turning> {
        let tell = |felt: &Felt| {
            let asked = felt.beat.asked.load(Ordering::Acquire);
            let waiting = (asked != 0).then(|| Duration::from_nanos(self.now().saturating_sub(asked)));
            let lag = Duration::from_nanos(felt.beat.lag.load(Ordering::Acquire));
            Turning { name: felt.name.clone(), waiting, lag }
        };
        self.loops.lock().iter().map(tell).collect()
    }

    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64 + 1
    }
}
