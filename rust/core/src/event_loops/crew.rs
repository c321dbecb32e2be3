//! The threads that turn event loops: the watchdog that looks after them, and the spares that take over.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{EventLoop, EventLoops};
use crate::locks::{Condvar, Mutex};
use crate::metrics::Metrics;
use crate::server::Spawn;
use crate::shutdown::Lifecycle;

/// How long a handler may hold a loop before a spare thread takes the loop over.
const TAKE_OVER: Duration = Duration::from_millis(20);
/// How often the watchdog looks while there is something to see.
const LOOK: Duration = Duration::from_millis(5);
/// How many looks in vain make it sleep.
const LOOKS_IN_VAIN: u32 = 40;

/// What the threads of a server's loops share.
pub(super) struct Crew {
    pub(super) lifecycle: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    pub(super) spawn: Arc<dyn Spawn>,
    /// Called when the last loop has ended.
    pub(super) finish: Box<dyn Fn() + Send + Sync>,
    clock: Instant,
    /// How many loops there are, and spare threads for them.
    loops: usize,
    /// Loops that have not ended.
    pub(super) running: AtomicUsize,
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
        let all = self.clone();
        // A spare for each loop: starting one may have to wait for the interpreter, which a handler may keep.
        let spares: io::Result<()> = self.loops.iter().try_for_each(|_| crew.add_spare());
        let started =
            spares.and_then(|()| crew.spawn.spawn("portico-watchdog".into(), Box::new(move || all.look_after())));
        if started.is_err() {
            crew.state.lock().started = false;
        }
        started
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
                state = crew.look.wait_for(state, LOOK).0;
            } else {
                crew.watchdog_awake.store(false, Ordering::SeqCst);
                // A handler that began just before is not missed; one that begins after this wakes us.
                if self.loops.iter().all(|one| one.busy_since.load(Ordering::SeqCst) == 0) {
                    state = crew.look.wait(state);
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
                if crew.at(Instant::now()).saturating_sub(since) >= TAKE_OVER.as_millis() as u64 {
                    crew.take_over(one, since);
                }
            }
        }
    }
}

impl Crew {
    pub(super) fn new(
        loops: usize,
        lifecycle: &Arc<Lifecycle>,
        metrics: &Arc<Metrics>,
        spawn: &Arc<dyn Spawn>,
        finish: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Crew {
            lifecycle: lifecycle.clone(),
            metrics: metrics.clone(),
            spawn: spawn.clone(),
            finish,
            clock: Instant::now(),
            loops,
            running: AtomicUsize::new(loops),
            watchdog_awake: AtomicBool::new(true),
            state: Mutex::default(),
            look: Condvar::new(),
            relief: Condvar::new(),
        }
    }

    /// Milliseconds of `clock`, plus one, so that 0 can say that nobody is busy.
    pub(super) fn at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.clock).as_millis() as u64 + 1
    }

    pub(super) fn wake_watchdog(&self) {
        if !self.watchdog_awake.load(Ordering::SeqCst) {
            let _state = self.state.lock();
            self.look.notify_one();
        }
    }

    /// Takes a loop from a thread that is held up.
    ///
    /// Also where only the interpreter was waited for: I/O goes on, and nobody is judged.
    fn take_over(self: &Arc<Self>, one: &Arc<EventLoop>, since: u64) {
        if one.busy_since.compare_exchange(since, 0, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return; // Another call by now.
        }
        self.metrics.loop_takeovers.add();
        // Now, and not when it returns: the next request would suffer the same.
        if let Some(case) = one.case.lock().take() {
            case.send_to_pool();
        }
        self.hand_over(one);
    }

    /// Gives a loop to a spare thread, and sees to it that there is another one for the next time.
    ///
    /// The thread that had it may just have gone into the runtime. It notices at its next wake and does the I/O until then; the
    /// spare waits at the runtime's lock. Nothing is lost.
    pub(super) fn hand_over(self: &Arc<Self>, one: &Arc<EventLoop>) {
        one.busy_since.store(0, Ordering::SeqCst);
        let turn = one.next_turn();
        let spares = {
            let mut state = self.state.lock();
            state.orphans.push_back((one.clone(), turn));
            self.relief.notify_one();
            state.spares
        };
        if spares <= self.loops {
            // Without one the loop waits until its handler returns.
            let _ = self.add_spare();
        }
    }

    fn add_spare(self: &Arc<Self>) -> io::Result<()> {
        let crew = self.clone();
        self.spawn.spawn("portico-io-spare".into(), Box::new(move || crew.stand_by()))
    }

    /// A loop's first thread: turns it, and stands by when it has lost it.
    pub(super) fn serve(self: &Arc<Self>, one: &Arc<EventLoop>, turn: u64) {
        one.run(turn, self);
        self.stand_by();
    }

    /// Waits for a loop to turn, where not enough others do.
    fn stand_by(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            if state.stopped || (state.spares >= self.loops && state.orphans.is_empty()) {
                return;
            }
            state.spares += 1;
            while state.orphans.is_empty() && !state.stopped {
                state = self.relief.wait(state);
            }
            state.spares -= 1;
            let Some((one, turn)) = state.orphans.pop_front() else { return };
            drop(state);
            one.run(turn, self);
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.look.notify_all();
        self.relief.notify_all();
    }
}
