//! A pool of threads for what may block: handlers, and callbacks that have a connection to themselves.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Handler, Job, Reply, Streams, Turns, Work};
use crate::http::Request;
use crate::locks::{Condvar, Mutex, MutexGuard};
use crate::server::Spawn;

/// A thread beyond the fewest that has had nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(5);

struct State<W> {
    /// Bounded by `max_in_flight`, which counts what waits here too, or by `max_connections`.
    queue: Turns<(Instant, W)>,
    /// What was taken from the queue so far, and how long that had waited.
    taken: u64,
    waited: Duration,
    threads: usize,
    idle: usize,
    /// Threads started so far, for their names.
    started: usize,
    closed: bool,
}

impl<W> Default for State<W> {
    fn default() -> Self {
        let (queue, waited) = (Turns::default(), Duration::ZERO);
        State { queue, taken: 0, waited, threads: 0, idle: 0, started: 0, closed: false }
    }
}

impl<W> State<W> {
    /// Counts a thread that is to be started, and gives its number.
    fn one_more(&mut self) -> usize {
        self.threads += 1;
        self.started += 1;
        self.started
    }
}

/// What a pool does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLook {
    /// How many threads it has.
    pub threads: usize,
    /// Those of them that wait for work.
    pub idle: usize,
    /// How much work waits for a thread.
    pub queued: usize,
    /// How much its threads have taken up so far.
    pub taken: u64,
    /// How long that had waited, together.
    pub waited: Duration,
}

/// Threads that do work. A thread that takes some makes sure, before it begins, that another one is there for the next,
/// until there are enough: no I/O thread ever starts one.
pub struct Pool<W: Work = Job> {
    name: &'static str,
    state: Mutex<State<W>>,
    work: Condvar,
    least: usize,
    most: usize,
    spawn: Arc<dyn Spawn>,
}

impl Pool {
    /// A pool for handlers, of so many threads at the least and at the most, each started by `spawn`.
    pub fn new(least: usize, most: usize, spawn: Arc<dyn Spawn>) -> Arc<Self> {
        Pool::named("portico-handler", least, most, spawn)
    }
}

impl<W: Work> Pool<W> {
    /// A pool whose threads have that name and a number.
    pub fn named(name: &'static str, least: usize, most: usize, spawn: Arc<dyn Spawn>) -> Arc<Self> {
        let least = least.min(most);
        Arc::new(Pool { name, state: Mutex::default(), work: Condvar::new(), least, most, spawn })
    }

    /// Starts the fewest threads that there are to be.
    ///
    /// # Errors
    /// The machine has no thread to give.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        // Not `while` there are too few: those of a closed pool end at once.
        let missing = self.least.saturating_sub(self.state.lock().threads);
        for _ in 0..missing {
            let number = self.state.lock().one_more();
            self.start_thread(number)?;
        }
        Ok(())
    }

    /// Starts a thread that is counted already.
    fn start_thread(self: &Arc<Self>, number: usize) -> io::Result<()> {
        let pool = self.clone();
        let started = self.spawn.spawn(format!("{}-{number}", self.name), Box::new(move || pool.run()));
        if started.is_err() {
            self.state.lock().threads -= 1;
        }
        started
    }

    /// Leaves work to a thread. A closed pool drops it: a job is then answered with 500, a connection closed.
    pub fn submit(&self, work: W) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.queue.push(work.connection(), (now, work));
        drop(state);
        self.work.notify_one();
    }

    fn run(self: Arc<Self>) {
        while let Some(first) = self.wait_for_work() {
            first.run_with(&mut || self.take(self.state.lock()));
        }
    }

    /// The next, whenever it comes; none when this thread is to end.
    fn wait_for_work(self: &Arc<Self>) -> Option<W> {
        let mut state = self.state.lock();
        state.idle += 1;
        while state.queue.is_empty() && !state.closed {
            let late;
            (state, late) = self.work.wait_for(state, IDLE);
            if late && state.queue.is_empty() && state.threads > self.least {
                break;
            }
        }
        state.idle -= 1;
        let job = self.take(state);
        if job.is_none() {
            self.state.lock().threads -= 1;
        }
        job
    }

    /// The next that is there.
    fn take(self: &Arc<Self>, mut state: MutexGuard<'_, State<W>>) -> Option<W> {
        let (since, work) = state.queue.pop()?;
        state.taken += 1;
        state.waited += since.elapsed();
        let alone = state.idle == 0 && state.threads < self.most && !state.closed;
        let number = alone.then(|| state.one_more());
        drop(state);
        if let Some(number) = number {
            // Without another thread this one still does the work, only later.
            let _ = self.start_thread(number);
        }
        Some(work)
    }

    /// What it does now, and has done.
    pub fn look(&self) -> PoolLook {
        let state = self.state.lock();
        PoolLook {
            threads: state.threads,
            idle: state.idle,
            queued: state.queue.len(),
            taken: state.taken,
            waited: state.waited,
        }
    }

    /// Lets the threads end when they have done what is queued.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_all();
    }
}

/// A handler that is called on a pool.
pub struct Pooled {
    /// What is called.
    pub handler: Arc<dyn Handler>,
    /// Where.
    pub pool: Arc<Pool>,
}

impl Handler for Pooled {
    fn call(&self, request: Box<Request>, reply: Reply) {
        self.pool.submit(Job { handler: self.handler.clone(), judge: None, request, reply });
    }

    fn streams(&self) -> Streams {
        self.handler.streams()
    }
}
