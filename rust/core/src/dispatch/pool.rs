//! A pool of threads for handlers that may block.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::{Handler, Job, Reply};
use crate::http::Request;
use crate::server::Spawn;

#[derive(Default)]
struct State {
    /// Bounded by `max_in_flight`, which counts what waits here too.
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

/// Threads that call handlers. A thread that takes work makes sure, before it calls the handler, that another one is there
/// for the next request, until there are enough: no I/O thread ever starts one.
pub struct Pool {
    state: Mutex<State>,
    work: Condvar,
    most: usize,
    spawn: Arc<dyn Spawn>,
}

impl Pool {
    /// A pool of at most so many threads, each started by `spawn`.
    pub fn new(most: usize, spawn: Arc<dyn Spawn>) -> Arc<Self> {
        Arc::new(Pool { state: Mutex::default(), work: Condvar::new(), most, spawn })
    }

    /// Starts threads until there are `least`.
    ///
    /// # Errors
    /// The machine has no thread to give.
    pub fn start(self: &Arc<Self>, least: usize) -> io::Result<()> {
        // Not `while` there are too few: those of a closed pool end at once.
        let missing = least.min(self.most).saturating_sub(self.state.lock().threads);
        for _ in 0..missing {
            self.start_thread()?;
        }
        Ok(())
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let number = {
            let mut state = self.state.lock();
            state.threads += 1;
            state.threads
        };
        let pool = self.clone();
        let started = self.spawn.spawn(format!("portico-handler-{number}"), Box::new(move || pool.run()));
        if started.is_err() {
            self.state.lock().threads -= 1;
        }
        started
    }

    pub(super) fn submit(&self, job: Job) {
        let mut state = self.state.lock();
        if state.closed {
            return; // Dropping the job answers it with 500.
        }
        state.queue.push_back(job);
        drop(state);
        self.work.notify_one();
    }

    fn run(self: Arc<Self>) {
        loop {
            let (job, alone) = {
                let mut state = self.state.lock();
                state.idle += 1;
                while state.queue.is_empty() && !state.closed {
                    self.work.wait(&mut state);
                }
                state.idle -= 1;
                let Some(job) = state.queue.pop_front() else {
                    state.threads -= 1;
                    return;
                };
                (job, state.idle == 0 && state.threads < self.most && !state.closed)
            };
            if alone {
                // Without another thread this one still does the work, only later.
                let _ = self.start_thread();
            }
            job.run();
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
    fn call(&self, request: Request, reply: Reply) {
        self.pool.submit(Job { handler: self.handler.clone(), judge: None, request, reply });
    }
}
