//! A copy for each thread that counts, on memory that no other core writes to.
//!
//! With one counter for all, four threads that each count six things for a request take the cache lines from one another six
//! times.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// More threads than this share copies.
const SHARDS: usize = 8;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MINE: Cell<usize> = Cell::new(THREADS.fetch_add(1, Relaxed) % SHARDS);
}

/// One copy, on cache lines of its own: 128 bytes, since processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// Copies of something for the threads that count.
#[derive(Debug, Default)]
pub(crate) struct Shards<T>(Box<[Apart<T>; SHARDS]>);

impl<T> Shards<T> {
    /// That of this thread.
    pub(super) fn mine(&self) -> &T {
        &self.0[MINE.get()].0
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|apart| &apart.0)
    }
}

/// A counter, or how many there are now of something, as far as one thread has seen them come and go.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Counts more.
    pub(crate) fn add_many(&self, more: u64) {
        if more > 0 {
            self.0.fetch_add(more, Relaxed);
        }
    }

    /// Takes one back, which another thread may have counted: what each has is right in the sum alone.
    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(super) fn part(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many there are now of something, over all threads: for limits.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    /// Counts one more, and says how many that makes.
    pub(crate) fn add(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }

    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
