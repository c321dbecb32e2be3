//! Handlers on an event loop of asyncio: requests wait in a queue until the loop's thread takes all that came meanwhile, each
//! as a task whose first step runs at once.
//!
//! A loop made by `portico.new_event_loop` turns the server's I/O on its own thread ([`Driver`]): a handler that does not
//! suspend then costs no change of threads and no turn of the loop. Any other loop is woken through a socket, once for all
//! that wait.

mod answer;
mod bridge;
mod driver;
mod queue;

use std::sync::Arc;
use std::time::{Duration, Instant};

use portico_core::dispatch::Streams;
use portico_core::{Handler, Reply};

pub(crate) use self::answer::Raised;
pub(crate) use self::bridge::Bridge;
pub(crate) use self::driver::Driver;
pub(crate) use self::queue::{Queue, Sleeper};

use self::queue::Job;
use crate::handler::Function;

/// A handler that is called on an event loop.
pub(crate) struct OnLoop {
    pub(crate) function: Arc<Function>,
    pub(crate) queue: Arc<Queue>,
    /// The setting `handler_timeout`.
    pub(crate) timeout: Option<Duration>,
}

impl Handler for OnLoop {
    fn call(&self, request: Box<portico_core::http::Request>, reply: Reply) {
        // No attaching here: the loop's thread does that, once for all that came meanwhile.
        // The core's own began before it, and so is over before it but for this.
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout.saturating_sub(Duration::from_millis(5)));
        self.queue.push(Job { function: self.function.clone(), request, reply, deadline });
    }

    fn is_cancellable(&self) -> bool {
        true
    }

    fn streams(&self) -> Streams {
        self.function.streams
    }
}
