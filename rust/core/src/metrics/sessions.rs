//! What is counted of sessions: by whoever keeps them, outside of the core, for all servers that have them in common.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::list::{Counted, Kind, Stat};
use super::shards::Counter;

/// Why sessions end.
const ENDS: [&str; 3] = ["handler", "expired", "evicted"];
/// What of a session is not taken for one.
const REJECTED: [&str; 2] = ["cookie", "record"];
/// Why a request does not get its session, or cannot keep it.
const FAILURES: [&str; 3] = ["store", "busy", "conflict"];

/// Counters of sessions in one store.
#[derive(Debug, Default)]
pub struct SessionCounts {
    in_memory: AtomicU64,
    made: Counter,
    ended: [Counter; ENDS.len()],
    rejected: [Counter; REJECTED.len()],
    failed: [Counter; FAILURES.len()],
}

impl SessionCounts {
    /// So many are in the memory of this process.
    pub fn hold(&self, number: u64) {
        self.in_memory.store(number, Relaxed);
    }

    /// One was kept for the first time.
    pub fn made(&self) {
        self.made.add();
    }

    /// So many have ended: `handler`, `expired` or `evicted`. Like the next two it says whether it knows the word.
    #[must_use]
    pub fn ended(&self, reason: &str, number: u64) -> bool {
        count(&self.ended, ENDS, reason, number)
    }

    /// A `cookie` or a `record` was not signed here, or cannot be read.
    #[must_use]
    pub fn rejected(&self, what: &str) -> bool {
        count(&self.rejected, REJECTED, what, 1)
    }

    /// A request could not have or keep its session: `store`, `busy` or `conflict`.
    #[must_use]
    pub fn failed(&self, reason: &str) -> bool {
        count(&self.failed, FAILURES, reason, 1)
    }

    pub(super) fn list(&self) -> Vec<Counted> {
        let counter = |name, doc, stat| Counted { name, doc, kind: Kind::Counter, stat };
        vec![
            Counted {
                name: "sessions_in_memory",
                doc: "sessions that the memory of this process holds",
                kind: Kind::Gauge,
                stat: Stat::Number(self.in_memory.load(Relaxed)),
            },
            counter("sessions_made", "sessions begun", Stat::Number(self.made.part())),
            counter(
                "sessions_ended",
                "sessions that were ended by a handler, were not used in time, or had to make room for others; Redis does not tell of the latter two",
                labelled(ENDS, &self.ended),
            ),
            counter(
                "sessions_rejected",
                "cookies of sessions, and what is kept of one, that were not signed here or cannot be read",
                labelled(REJECTED, &self.rejected),
            ),
            counter(
                "session_failures",
                "times a request could not have or keep its session, which answers it with 503, by why",
                labelled(FAILURES, &self.failed),
            ),
        ]
    }
}

fn count<const N: usize>(counters: &[Counter; N], words: [&str; N], word: &str, number: u64) -> bool {
    let at = words.iter().position(|known| *known == word);
    at.inspect(|at| counters[*at].add_many(number)).is_some()
}

fn labelled<const N: usize>(words: [&'static str; N], counters: &[Counter; N]) -> Stat {
    Stat::Labelled("reason", words.into_iter().zip(counters.iter().map(Counter::part)).collect())
}
