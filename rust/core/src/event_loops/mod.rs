//! The event loops that do a server's I/O, and the threads that turn them.
//!
//! A loop is a single-threaded tokio runtime, turned by one thread at a time. Handlers that are called without a hop run on
//! that thread, but *between* turns: the runtime is not held while a handler runs. When one takes too long a watchdog gives
//! the loop to a spare thread, and its connections go on; the late thread finds out when its handler returns, and becomes a
//! spare itself, or ends where there is one. So a handler costs no hop while it is short, and holds up nobody for long when it is not.
//!
//! The first loop of a server may be turned by somebody else's event loop instead, see [`Driver`]: then what runs on that one
//! and what is read from clients share a thread.

mod crew;
mod driver;
mod pulse;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use tokio::runtime::{Builder, Handle, Runtime};

pub use driver::{Driven, Driver, LoopWaker};
pub(crate) use pulse::{Pulse, Turning};

use crew::Crew;

use crate::dispatch::{Case, Destination, HOLD, Job, Runs, Turns, Work};
use crate::http::Response;
use crate::locks::Mutex;
use crate::metrics::Metrics;
use crate::server::Spawn;
use crate::shutdown::{Lifecycle, Phase};

/// Has the task that is polled polled again, behind what other connections have received. Woken by its own hand it would come
/// again before its loop looks at their sockets.
pub(crate) fn give_way(cx: &mut Context<'_>) {
    let _pending = pin!(tokio::task::yield_now()).poll(cx);
}

/// One event loop.
pub(crate) struct EventLoop {
    handle: Handle,
    /// Held by the thread that turns it, while it does. None once it has ended.
    runtime: Mutex<Option<Runtime>>,
    ended: AtomicBool,
    connections: AtomicUsize,
    /// Whether a [`Driver`] turns it.
    driven: AtomicBool,
    /// Whether the driver is wanted.
    called_for: AtomicBool,
    /// Calls for the thread that turns this loop.
    jobs: Mutex<Turns<Job>>,
    /// Answers of such calls, to be delivered by the next turn: from outside of one each would cost a system call.
    answers: Mutex<Vec<(Destination, Response)>>,
    wake: AtomicWaker,
    /// Whose turn it is: counts up when a loop is taken over.
    turn: AtomicU64,
    /// Since when a handler has been running, in milliseconds of `Crew::clock`, plus one; 0 while none is.
    busy_since: AtomicU64,
    /// The call that is being made, where it is judged.
    case: Mutex<Option<Case>>,
}

/// How many threads read, for one loop, what a disk has to fetch.
const FILE_THREADS: usize = 4;

thread_local! {
    /// The loop that this thread turns, and the turn it has.
    static CURRENT: RefCell<Option<(Arc<EventLoop>, u64)>> = const { RefCell::new(None) };
    /// Whether it is within a turn, and not between two.
    static TURNING: Cell<bool> = const { Cell::new(false) };
}

impl EventLoop {
    fn new() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // They read what a disk has to fetch; more of them would only wait for the same one. None before there is such a file.
            .max_blocking_threads(FILE_THREADS)
            .thread_name("portico-files")
            .build()?;
        Ok(Arc::new(EventLoop {
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            ended: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            driven: AtomicBool::new(false),
            called_for: AtomicBool::new(false),
            jobs: Mutex::default(),
            answers: Mutex::default(),
            wake: AtomicWaker::new(),
            turn: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            case: Mutex::default(),
        }))
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(future);
    }

    pub(crate) fn occupy(self: &Arc<Self>) -> Occupied {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Occupied(self.clone())
    }

    /// Leaves a call to the thread that turns the loop on which this is called; gives it back where there is none, and
    /// where that thread is somebody else's and the call may turn out to be long.
    pub(crate) fn call_soon(job: Job) -> Option<Job> {
        CURRENT.with_borrow(|current| match current {
            Some((current, _)) if job.judge.is_none() || !current.driven.load(Ordering::Relaxed) => {
                let first = {
                    let mut jobs = current.jobs.lock();
                    let first = jobs.is_empty();
                    jobs.push(job.connection(), job);
                    first
                };
                if first {
                    current.wake.wake();
                }
                None
            }
            _ => Some(job),
        })
    }

    /// Leaves an answer to the next turn, where this is called between two; else gives it back.
    pub(crate) fn deliver(destination: Destination, answer: Response) -> Option<(Destination, Response)> {
        CURRENT.with_borrow(|current| match current {
            Some((current, turn)) if !TURNING.get() && !current.ended.load(Ordering::Acquire) => {
                current.answers.lock().push((destination, answer));
                if current.turn.load(Ordering::Acquire) != *turn {
                    // Whoever has the loop now may be waiting. A turn that only begins looks by itself.
                    current.wake.wake();
                }
                None
            }
            _ => Some((destination, answer)),
        })
    }

    /// What ends a turn: the loop's next one is another thread's, the server has stopped, or there are calls.
    fn poll_turn(&self, turn: u64, stopped: Pin<&mut impl Future>, cx: &mut Context<'_>) -> Poll<Turned> {
        // Before the waker, which may be the next one's already.
        if self.turn.load(Ordering::Acquire) != turn {
            return Poll::Ready(Turned::Lost);
        }
        self.wake.register(cx.waker());
        for (destination, answer) in self.answers.lock().drain(..) {
            destination.send(answer);
        }
        if stopped.poll(cx).is_ready() {
            Poll::Ready(Turned::Stopped)
        } else if self.turn.load(Ordering::Acquire) != turn {
            Poll::Ready(Turned::Lost)
        } else if self.jobs.lock().is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(Turned::Called)
        }
    }

    /// Turns the runtime until `turned` says why to stop.
    fn turn<T>(&self, turned: impl Future<Output = T>) -> Option<T> {
        let runtime = self.runtime.lock();
        TURNING.set(true);
        let result = runtime.as_ref().map(|runtime| runtime.block_on(turned));
        TURNING.set(false);
        result
    }

    /// Gives the loop's next turn to whoever asks: it is no longer that of the thread that has it.
    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Turns the loop until it ends or is taken over.
    fn run(self: &Arc<Self>, turn: u64, crew: &Crew) {
        let mut phase = crew.lifecycle.subscribe();
        CURRENT.set(Some((self.clone(), turn)));
        // Looked at first: where it was lost the runtime is somebody else's for long.
        while self.turn.load(Ordering::Acquire) == turn {
            let stopped = phase.wait_for(|phase| *phase == Phase::Stopped);
            let mut stopped = pin!(stopped);
            match self.turn(poll_fn(|cx| self.poll_turn(turn, stopped.as_mut(), cx))) {
                Some(Turned::Called) => self.call(turn, crew),
                Some(Turned::Lost) | None => break,
                Some(Turned::Stopped) => {
                    CURRENT.set(None);
                    return self.end(crew);
                }
            }
        }
        CURRENT.set(None);
    }

    /// Calls what is waiting, for a bounded time, or until the loop was taken over.
    fn call(&self, turn: u64, crew: &Crew) {
        let Some(first) = self.jobs.lock().pop() else { return };
        let handler = first.handler.clone();
        let (mut first, began) = (Some(first), Instant::now());
        // While the interpreter is waited for nobody is to blame.
        *self.case.lock() = None;
        self.busy_since.store(crew.at(began), Ordering::SeqCst);
        crew.wake_watchdog();
        handler.hold(&mut || {
            loop {
                let now = Instant::now();
                let next = || (now.duration_since(began) < HOLD).then(|| self.jobs.lock().pop())?;
                let Some(job) = first.take().or_else(next) else { break };
                let case = job.case();
                // What was lost while the interpreter was waited for is no longer ours to mark; the job in hand is.
                if self.turn.load(Ordering::Acquire) == turn {
                    self.case.lock().clone_from(&case);
                    self.busy_since.store(crew.at(now), Ordering::SeqCst);
                }
                job.run(Runs::Inline, case.as_ref());
                if self.turn.load(Ordering::Acquire) != turn {
                    return; // What else is waiting is no longer ours.
                }
            }
        });
        if self.turn.load(Ordering::Acquire) == turn {
            self.busy_since.store(0, Ordering::SeqCst);
        }
    }

    /// Drops every connection.
    fn end(&self, crew: &Crew) {
        let Some(runtime) = self.runtime.lock().take() else {
            return; // Another thread was faster.
        };
        // Without waiting for a disk that does not answer.
        runtime.shutdown_background();
        self.ended.store(true, Ordering::Release);
        // Requests that were left behind are answered, to nobody.
        drop(std::mem::take(&mut *self.jobs.lock()));
        // A handler of another server may have answered on our thread.
        let answers = std::mem::take(&mut *self.answers.lock());
        answers.into_iter().for_each(|(destination, answer)| destination.send(answer));
        if crew.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            crew.stop();
            (crew.finish)();
        }
    }
}

/// The name of a loop's first thread, and so the loop's.
fn thread_name(number: usize) -> String {
    format!("portico-io-{number}")
}

/// Why a turn of a loop ended.
enum Turned {
    /// There are calls to make.
    Called,
    /// The server has stopped.
    Stopped,
    /// Another thread has the loop.
    Lost,
}

/// One connection's place on a loop.
pub(crate) struct Occupied(Arc<EventLoop>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All loops of a server, and the threads that turn them.
#[derive(Clone)]
pub(crate) struct EventLoops {
    loops: Arc<[Arc<EventLoop>]>,
    crew: Arc<Crew>,
}

impl EventLoops {
    /// Makes `count` loops. `finish` is called once when all of them have ended.
    pub(crate) fn new(
        count: usize,
        lifecycle: &Arc<Lifecycle>,
        metrics: &Arc<Metrics>,
        spawn: &Arc<dyn Spawn>,
        finish: Box<dyn Fn() + Send + Sync>,
    ) -> io::Result<Self> {
        let loops: io::Result<Vec<_>> = (0..count).map(|_| EventLoop::new()).collect();
        let crew = Arc::new(Crew::new(count, lifecycle, metrics, spawn, finish));
        Ok(EventLoops { loops: loops?.into(), crew })
    }

    /// Starts a thread for each that no [`Driver`] turns.
    pub(crate) fn start(&self) -> io::Result<()> {
        for (number, one) in self.loops.iter().enumerate() {
            if one.driven.load(Ordering::Relaxed) {
                continue;
            }
            let (turned, crew) = (one.clone(), self.crew.clone());
            let body = Box::new(move || crew.serve(&turned, 0));
            if let Err(error) = self.crew.spawn.spawn(thread_name(number), body) {
                // Those that did start end at once; the others are ended here.
                self.crew.lifecycle.stop();
                let left = self
                    .loops
                    .iter()
                    .enumerate()
                    .filter(|(at, one)| *at >= number || one.driven.load(Ordering::Relaxed));
                left.for_each(|(_, one)| one.end(&self.crew));
                return Err(error);
            }
        }
        Ok(())
    }

    pub(crate) fn first(&self) -> &Arc<EventLoop> {
        &self.loops[0]
    }

    pub(crate) fn least_busy(&self) -> &Arc<EventLoop> {
        let least = self.loops.iter().min_by_key(|one| one.connections.load(Ordering::Relaxed));
        least.unwrap_or(self.first())
    }
}
