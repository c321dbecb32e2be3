//! The event loops that do a server's I/O, and the threads that turn them.
//!
//! A loop is a single-threaded tokio runtime, turned by one thread at a time. Handlers that are called without a hop run on
//! that thread, but *between* turns: the runtime is not held while a handler runs. When one takes too long a watchdog gives
//! the loop to a spare thread, and its connections go on; the late thread finds out when its handler returns, and becomes a
//! spare itself. So a handler costs no hop while it is short, and holds up nobody for long when it is not.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use crate::dispatch::{Destination, Job, Judge};
use crate::http::Response;
use crate::metrics::Metrics;
use crate::server::Spawn;
use crate::shutdown::{Lifecycle, Phase};

/// How long a handler may hold a loop before a spare thread takes the loop over.
const TAKE_OVER: Duration = Duration::from_millis(20);
/// How often the watchdog looks while there is something to see.
const LOOK: Duration = Duration::from_millis(5);
/// How many looks in vain make it sleep.
const LOOKS_IN_VAIN: u32 = 40;

/// One event loop.
pub(crate) struct EventLoop {
    handle: Handle,
    /// None once it has ended.
    runtime: Mutex<Option<Arc<Runtime>>>,
    connections: AtomicUsize,
    /// Calls for the thread that turns this loop.
    jobs: Mutex<VecDeque<Job>>,
    /// Answers of such calls, to be delivered by the next turn: from outside of one each would cost a system call.
    answers: Mutex<Vec<(Destination, Response)>>,
    wake: AtomicWaker,
    /// Whose turn it is: counts up when a loop is taken over.
    turn: AtomicU64,
    /// Since when a handler has been running, in milliseconds of `Crew::clock`, plus one; 0 while none is.
    busy_since: AtomicU64,
    /// Who judges the handler that is running.
    judge: Mutex<Option<Arc<Judge>>>,
}

thread_local! {
    /// The loop that this thread turns.
    static CURRENT: RefCell<Option<Arc<EventLoop>>> = const { RefCell::new(None) };
    /// Whether it is between two turns, calling handlers.
    static CALLING: Cell<bool> = const { Cell::new(false) };
}

impl EventLoop {
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(future);
    }

    pub(crate) fn occupy(self: &Arc<Self>) -> Occupied {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Occupied(self.clone())
    }

    /// Leaves a call to the thread that turns the loop on which this is called; gives it back where there is none.
    pub(crate) fn call_soon(job: Job) -> Option<Job> {
        CURRENT.with_borrow(|current| match current {
            Some(current) => {
                current.jobs.lock().push_back(job);
                current.wake.wake();
                None
            }
            None => Some(job),
        })
    }

    /// Leaves an answer to the next turn, where this is called between two; else gives it back.
    pub(crate) fn deliver(destination: Destination, answer: Response) -> Option<(Destination, Response)> {
        CURRENT.with_borrow(|current| match current {
            Some(current) if CALLING.get() => {
                current.answers.lock().push((destination, answer));
                current.wake.wake();
                None
            }
            _ => Some((destination, answer)),
        })
    }

    /// Turns the runtime until there are calls, or the server has stopped.
    async fn until_called(&self, phase: &mut watch::Receiver<Phase>) -> Turned {
        let stopped = phase.wait_for(|phase| *phase == Phase::Stopped);
        tokio::pin!(stopped);
        std::future::poll_fn(|cx| {
            self.wake.register(cx.waker());
            for (destination, answer) in self.answers.lock().drain(..) {
                destination.send(answer);
            }
            if stopped.as_mut().poll(cx).is_ready() {
                Poll::Ready(Turned::Stopped)
            } else if self.jobs.lock().is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(Turned::Called)
            }
        })
        .await
    }

    /// Turns the loop until it ends or is taken over.
    fn run(self: &Arc<Self>, turn: u64, crew: &Crew) {
        let mut phase = crew.lifecycle.subscribe();
        CURRENT.set(Some(self.clone()));
        while self.turn.load(Ordering::Acquire) == turn {
            let Some(runtime) = self.runtime.lock().clone() else { break };
            let turned = runtime.block_on(self.until_called(&mut phase));
            // Not held while handlers run, so that whoever takes over can end it.
            drop(runtime);
            match turned {
                Turned::Called => self.call(turn, crew),
                Turned::Stopped => {
                    CURRENT.set(None);
                    return self.end(crew);
                }
            }
        }
        CURRENT.set(None);
    }

    /// Calls what is waiting, until it is done or the loop was taken over.
    fn call(&self, turn: u64, crew: &Crew) {
        loop {
            let Some(job) = self.jobs.lock().pop_front() else { break };
            *self.judge.lock() = job.judge.clone();
            self.busy_since.store(crew.now(), Ordering::SeqCst);
            crew.wake_watchdog();
            CALLING.set(true);
            job.run();
            CALLING.set(false);
            if self.turn.load(Ordering::Acquire) != turn {
                return; // What else is waiting is no longer ours; nor is `busy_since`.
            }
        }
        self.busy_since.store(0, Ordering::SeqCst);
    }

    /// Drops every connection.
    fn end(&self, crew: &Crew) {
        let runtime = self.runtime.lock().take();
        if runtime.is_none() {
            return; // Another thread was faster.
        }
        drop(runtime);
        // Requests that were left behind are answered, to nobody.
        drop(std::mem::take(&mut *self.jobs.lock()));
        if crew.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            crew.stop();
            (crew.finish)();
        }
    }
}

enum Turned {
    Called,
    Stopped,
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

/// What the threads of a server's loops share.
struct Crew {
    lifecycle: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    spawn: Arc<dyn Spawn>,
    /// Called when the last loop has ended.
    finish: Box<dyn Fn() + Send + Sync>,
    clock: Instant,
    /// Loops that have not ended.
    running: AtomicUsize,
    watchdog_awake: AtomicBool,
    state: Mutex<Watch>,
    /// Wakes the watchdog.
    look: Condvar,
    /// Wakes a spare thread.
    relief: Condvar,
}

#[derive(Default)]
struct Watch {
    started: bool,
    stopped: bool,
    /// Threads that wait for a loop.
    spares: usize,
    /// Loops that wait for a thread, with the turn they are given.
    orphans: VecDeque<(Arc<EventLoop>, u64)>,
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
        let mut loops = Vec::with_capacity(count);
        for _ in 0..count {
            let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
            loops.push(Arc::new(EventLoop {
                handle: runtime.handle().clone(),
                runtime: Mutex::new(Some(Arc::new(runtime))),
                connections: AtomicUsize::new(0),
                jobs: Mutex::default(),
                answers: Mutex::default(),
                wake: AtomicWaker::new(),
                turn: AtomicU64::new(0),
                busy_since: AtomicU64::new(0),
                judge: Mutex::default(),
            }));
        }
        let crew = Arc::new(Crew {
            lifecycle: lifecycle.clone(),
            metrics: metrics.clone(),
            spawn: spawn.clone(),
            finish,
            clock: Instant::now(),
            running: AtomicUsize::new(count),
            watchdog_awake: AtomicBool::new(true),
            state: Mutex::default(),
            look: Condvar::new(),
            relief: Condvar::new(),
        });
        Ok(EventLoops { loops: loops.into(), crew })
    }

    /// Starts a thread for each.
    pub(crate) fn start(&self) -> io::Result<()> {
        for (number, one) in self.loops.iter().enumerate() {
            let (turned, crew) = (one.clone(), self.crew.clone());
            let body = Box::new(move || crew.serve(&turned, 0));
            if let Err(error) = self.crew.spawn.spawn(format!("portico-io-{number}"), body) {
                // Those that did start end at once; the others are ended here.
                self.crew.lifecycle.stop();
                self.loops.iter().skip(number).for_each(|turned| turned.end(&self.crew));
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

    /// Makes sure that a handler which takes too long on a loop's thread is noticed.
    pub(crate) fn watch(&self) -> io::Result<()> {
        let crew = &self.crew;
        {
            let mut state = crew.state.lock();
            if state.started || state.stopped {
                return Ok(());
            }
            state.started = true;
        }
        crew.add_spare()?;
        let all = self.clone();
        crew.spawn.spawn("portico-watchdog".into(), Box::new(move || all.look_after()))
    }

    /// The watchdog.
    fn look_after(&self) {
        let crew = &self.crew;
        let mut in_vain = 0;
        loop {
            let mut state = crew.state.lock();
            if state.stopped {
                return;
            }
            if in_vain < LOOKS_IN_VAIN {
                crew.look.wait_for(&mut state, LOOK);
            } else {
                crew.watchdog_awake.store(false, Ordering::SeqCst);
                // A handler that began just before is not missed; one that begins after this wakes us.
                if self.loops.iter().all(|one| one.busy_since.load(Ordering::SeqCst) == 0) {
                    crew.look.wait(&mut state);
                }
                crew.watchdog_awake.store(true, Ordering::SeqCst);
                in_vain = 0;
            }
            drop(state);
            in_vain += 1;
            for one in self.loops.iter() {
                let since = one.busy_since.load(Ordering::SeqCst);
                if since == 0 {
                    continue;
                }
                in_vain = 0;
                if crew.now().saturating_sub(since) >= TAKE_OVER.as_millis() as u64 {
                    crew.hand_over(one);
                }
            }
        }
    }
}

impl Crew {
    /// Milliseconds, plus one.
    fn now(&self) -> u64 {
        self.clock.elapsed().as_millis() as u64 + 1
    }

    fn wake_watchdog(&self) {
        if !self.watchdog_awake.load(Ordering::SeqCst) {
            let _state = self.state.lock();
            self.look.notify_one();
        }
    }

    /// Gives a loop to a spare thread, and sees to it that there is another one for the next time.
    fn hand_over(self: &Arc<Self>, one: &Arc<EventLoop>) {
        one.busy_since.store(0, Ordering::SeqCst);
        let turn = one.turn.fetch_add(1, Ordering::AcqRel) + 1;
        self.metrics.loop_takeovers.add();
        // Now, and not when it returns: the next request would suffer the same.
        if let Some(judge) = one.judge.lock().take() {
            judge.send_to_pool();
        }
        let spares = {
            let mut state = self.state.lock();
            state.orphans.push_back((one.clone(), turn));
            self.relief.notify_one();
            state.spares
        };
        if spares <= 1 {
            // Without one the loop waits until its handler returns.
            let _ = self.add_spare();
        }
    }

    fn add_spare(self: &Arc<Self>) -> io::Result<()> {
        let crew = self.clone();
        self.spawn.spawn("portico-io-spare".into(), Box::new(move || crew.stand_by()))
    }

    /// A loop's first thread: turns it, and stands by when it has lost it.
    fn serve(self: &Arc<Self>, one: &Arc<EventLoop>, turn: u64) {
        one.run(turn, self);
        self.stand_by();
    }

    /// Waits for a loop to turn, as long as no other thread does.
    fn stand_by(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            if state.stopped || (state.spares > 0 && state.orphans.is_empty()) {
                return;
            }
            state.spares += 1;
            while state.orphans.is_empty() && !state.stopped {
                self.relief.wait(&mut state);
            }
            state.spares -= 1;
            let Some((one, turn)) = state.orphans.pop_front() else { return };
            drop(state);
            one.run(turn, self);
        }
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.look.notify_all();
        self.relief.notify_all();
    }
}
