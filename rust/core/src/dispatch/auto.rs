//! Handlers called without a hop: always, or for as long as they prove short.

use std::sync::Arc;

use super::{Handler, Job, Judge, Pool, Reply, Runs};
use crate::event_loops::EventLoop;
use crate::http::Request;

/// Calls a handler on the thread that read the request, between two turns of its event loop.
pub struct Inline {
    /// What is called.
    pub handler: Arc<dyn Handler>,
}

impl Handler for Inline {
    fn call(&self, request: Box<Request>, reply: Reply) {
        let job = Job { handler: self.handler.clone(), judge: None, request, reply };
        // Without a loop, as in a test, at once.
        if let Some(job) = EventLoop::call_soon(job) {
            job.run(Runs::Inline, None);
        }
    }
}

/// Calls a handler on a pool until it has proved short, then inline, but for the paths whose calls were long.
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
    fn call(&self, request: Box<Request>, reply: Reply) {
        let inline = self.judge.is_inline_for(request.target.raw_path());
        let job = Job { handler: self.handler.clone(), judge: Some(self.judge.clone()), request, reply };
        let not_inline = if inline { EventLoop::call_soon(job) } else { Some(job) };
        if let Some(job) = not_inline {
            self.pool.submit(job);
        }
    }
}
