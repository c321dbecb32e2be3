//! The access log: a line for each request that has ended.
//!
//! Lines are made where a request ends ([`line`]) and put into a bounded queue ([`queue`]); one thread writes them
//! ([`writer`]). So neither a full disk nor a slow pipe ever holds up a request: what finds no room is dropped and counted.
//!
//! A thread of our own, and not `tracing-appender`: that drops lines silently or blocks, writes each by itself, and cannot open
//! its file anew when told to.

mod line;
mod place;
mod queue;
mod writer;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::place::Place;
use self::queue::Queue;
use crate::config::Config;
use crate::error::{Error, Observer, Report, Stage};
use crate::metrics::Metrics;
use crate::record::Finished;
use crate::server::Spawn;

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// To the end of a file, or into a named pipe.
    File(PathBuf),
    /// To standard output.
    Stdout,
    /// To standard error.
    Stderr,
    /// To the embedding program, see [`Observer::access`].
    Program,
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// The Common Log Format of the first web servers.
    Common,
    /// The same, with referer and user agent, as Apache and nginx write it.
    Combined,
    /// A JSON object in each line.
    Json,
}

/// How long [`AccessLog::reopen`] waits for the writer, which may be in the middle of a write.
const REOPEN: Duration = Duration::from_secs(2);

/// The access log of one server.
pub(crate) struct AccessLog {
    target: LogTarget,
    format: LogFormat,
    queue: Arc<Queue>,
}

impl AccessLog {
    /// The one that is configured, if any is. Its file is opened, and made where there is none.
    ///
    /// # Errors
    /// [`Error::Config`]: the file cannot be opened.
    pub(crate) fn open(config: &Config) -> Result<Option<Self>, Error> {
        let Some(target) = config.access_log.clone() else { return Ok(None) };
        let place = Place::open(&target)?;
        Ok(Some(AccessLog { target, format: config.access_log_format, queue: Queue::new(place) }))
    }

    /// Starts the thread that writes.
    pub(crate) fn start(
        &self,
        spawn: &Arc<dyn Spawn>,
        observer: &Arc<dyn Observer>,
        metrics: &Arc<Metrics>,
    ) -> Result<(), Error> {
        if !self.queue.begin() {
            return Ok(());
        }
        let (queue, target) = (self.queue.clone(), self.target.clone());
        let (observer, metrics) = (observer.clone(), metrics.clone());
        let write = move || writer::run(&queue, &target, &*observer, &metrics);
        spawn.spawn("portico-access-log".into(), Box::new(write)).map_err(|source| {
            self.queue.did_not_begin();
            Error::Listen { address: "anything without a thread for the access log".into(), source }
        })
    }

    /// Adds a line, unless too many wait.
    pub(crate) fn add(&self, finished: &Finished<'_>, metrics: &Metrics) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            line::write(line, self.format, finished);
            if !self.queue.push(line) {
                metrics.access_log_dropped.add();
            }
            // A client may ask for much, once.
            line.shrink_to(4096);
        });
    }

    /// Opens the file anew, as after it was renamed. Lines that have not been written by then go to the new one.
    ///
    /// # Errors
    /// [`Error::Config`]: it cannot be opened, and the old one stays.
    pub(crate) fn reopen(&self) -> Result<(), Error> {
        let LogTarget::File(_) = self.target else { return Ok(()) };
        self.queue.reopen(Place::open(&self.target)?, REOPEN);
        Ok(())
    }

    /// Has the rest written, and ends the thread.
    pub(crate) fn close(&self) {
        self.queue.close();
    }
}

impl LogTarget {
    /// What to call it in messages.
    fn name(&self) -> String {
        match self {
            LogTarget::File(path) => format!("access log {}", path.display()),
            LogTarget::Stdout => "access log on standard output".into(),
            LogTarget::Stderr => "access log on standard error".into(),
            LogTarget::Program => "access log for the logger portico.access".into(),
        }
    }
}

fn tell(observer: &dyn Observer, message: String) {
    observer.report(Report { stage: Stage::AccessLog, reason: "access_log", message, status: None, connection: None });
}
