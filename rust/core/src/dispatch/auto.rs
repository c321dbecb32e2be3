//! Handlers called without a hop: always, or for as long as they prove short.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Handler, Job, Pool, Reply};
use crate::event_loops::EventLoop;
use crate::http::Request;

/// A call on the pool this short counts for calling the handler inline.
const SHORT: Duration = Duration::from_millis(1);
/// An inline call this long sends the handler back to the pool.
const LONG: Duration = Duration::from_millis(5);
/// Short calls in a row that make a handler inline, the first time. Each relapse takes four times as many.
const PROOF: u32 = 32;
const MOST_PROOF: u32 = 32 * 4 * 4 * 4 * 4;

/// Calls a handler on the thread that read the request, between two turns of its event loop.
pub struct Inline {
    /// What is called.
    pub handler: Arc<dyn Handler>,
}

impl Handler for Inline {
    fn call(&self, request: Request, reply: Reply) {
        let job = Job { handler: self.handler.clone(), judge: None, request, reply };
        // Without a loop, as in a test, at once.
        if let Some(job) = EventLoop::call_soon(job) {
            job.run();
        }
    }
}

/// Calls a handler on a pool until it has proved short, then inline until a call was long.
pub struct Auto {
    handler: Arc<dyn Handler>,
    pool: Arc<Pool>,
    judge: Arc<Judge>,
}

impl Auto {
    /// A handler that begins on the pool.
    pub fn new(handler: Arc<dyn Handler>, pool: Arc<Pool>) -> Self {
        Auto { handler, pool, judge: Arc::default() }
    }

    /// What it is judged by, for whoever wants to see.
    pub fn judge(&self) -> Arc<Judge> {
        self.judge.clone()
    }
}

impl Handler for Auto {
    fn call(&self, request: Request, reply: Reply) {
        let job = Job { handler: self.handler.clone(), judge: Some(self.judge.clone()), request, reply };
        let left = if self.judge.inline.load(Relaxed) { EventLoop::call_soon(job) } else { Some(job) };
        if let Some(job) = left {
            self.pool.submit(job);
        }
    }
}

/// Where a handler runs, and why.
#[derive(Debug, Default)]
pub struct Judge {
    inline: AtomicBool,
    /// Short calls in a row on the pool.
    streak: AtomicU32,
    /// How often it went back to the pool.
    relapses: AtomicU32,
    promotions: AtomicU32,
}

thread_local! {
    /// When the handler that runs on this thread really began; see [`handler_begins`].
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Says that a handler begins only now: what was waited for before, such as an interpreter's lock, is not its fault.
pub fn handler_begins() {
    BEGAN.set(Some(Instant::now()));
}

impl Judge {
    /// Whether it runs inline.
    pub fn is_inline(&self) -> bool {
        self.inline.load(Relaxed)
    }

    /// How often it became inline, and how often it went back to the pool because a call was long.
    pub fn moves(&self) -> (u32, u32) {
        (self.promotions.load(Relaxed), self.relapses.load(Relaxed))
    }

    /// Where it runs and why, for people.
    pub fn reason(&self) -> String {
        match (self.is_inline(), self.moves()) {
            (true, _) => format!("{} calls in a row took less than {SHORT:?}", self.proof()),
            (false, (_, 0)) => format!("it has not yet taken less than {SHORT:?} for {} calls in a row", self.proof()),
            (false, _) => format!("a call took {LONG:?} or more where its request was read"),
        }
    }

    /// Measures a call and learns from it.
    pub(super) fn watch(&self, call: impl FnOnce()) {
        let started = Instant::now();
        BEGAN.set(None);
        call();
        let took = BEGAN.take().unwrap_or(started).elapsed();
        if self.inline.load(Relaxed) {
            if took >= LONG {
                self.send_to_pool();
            }
        } else if took >= SHORT {
            self.streak.store(0, Relaxed);
        } else if self.streak.fetch_add(1, Relaxed) + 1 >= self.proof() && !self.inline.swap(true, Relaxed) {
            self.promotions.fetch_add(1, Relaxed);
        }
    }

    /// A call is or was too long to be made inline.
    pub(crate) fn send_to_pool(&self) {
        if self.inline.swap(false, Relaxed) {
            self.streak.store(0, Relaxed);
            self.relapses.fetch_add(1, Relaxed);
        }
    }

    /// Short calls in a row that are asked for now.
    fn proof(&self) -> u32 {
        PROOF.saturating_mul(4u32.saturating_pow(self.relapses.load(Relaxed))).min(MOST_PROOF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(judge: &Judge, took: Duration) {
        judge.watch(|| BEGAN.set(Instant::now().checked_sub(took)));
    }

    #[test]
    fn short_calls_promote_and_a_long_one_demotes_for_longer() {
        let judge = Judge::default();
        for _ in 1..PROOF {
            call(&judge, Duration::ZERO);
        }
        assert!(!judge.is_inline());
        call(&judge, Duration::ZERO);
        assert!(judge.is_inline());
        call(&judge, Duration::from_secs(1));
        assert!(!judge.is_inline());
        for _ in 0..PROOF {
            call(&judge, Duration::ZERO);
        }
        assert!(!judge.is_inline(), "the second time takes more proof");
        for _ in 0..3 * PROOF {
            call(&judge, Duration::ZERO);
        }
        assert!(judge.is_inline());
        assert_eq!(judge.moves(), (2, 1));
        assert_eq!(judge.reason(), "128 calls in a row took less than 1ms");
    }

    #[test]
    fn a_long_call_on_the_pool_begins_the_proof_anew() {
        let judge = Judge::default();
        for _ in 1..PROOF {
            call(&judge, Duration::ZERO);
        }
        call(&judge, Duration::from_millis(2));
        for _ in 1..PROOF {
            call(&judge, Duration::ZERO);
        }
        assert!(!judge.is_inline());
    }
}
