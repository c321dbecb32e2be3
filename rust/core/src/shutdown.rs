//! How a server ends: in two steps that cannot be missed, because they are states and not events.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::locks::Mutex;

/// Where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accepting and answering.
    Serving,
    /// No longer accepting.
    Draining(Drain),
    /// Everything is dropped.
    Stopped,
}

/// How a server lets go of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    /// When it began.
    pub(crate) since: Instant,
    /// When what is still in flight is dropped.
    pub(crate) until: Instant,
    /// How long a client that has asked nothing is still waited for, because what it asks may be on its way: HTTP/1 has no
    /// word by which the server could tell it before.
    pub(crate) patience: Duration,
}

/// Moves a server through its phases, never backwards.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: watch::Sender<Phase>,
    ended: Mutex<Ended>,
}

type Callback = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Ended {
    done: bool,
    callbacks: Vec<Callback>,
}

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ended").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Lifecycle {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Lifecycle { phase: watch::Sender::new(Phase::Serving), ended: Mutex::default() })
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn is_serving(&self) -> bool {
        *self.phase.borrow() == Phase::Serving
    }

    /// Begins to drain, or shortens a drain that was begun.
    pub(crate) fn drain(&self, grace: Duration, patience: Duration) {
        let now = Instant::now();
        // A grace of years means "wait for all": keep the sum representable.
        let until = now + grace.min(Duration::from_secs(86_400 * 365));
        self.phase.send_if_modified(|phase| {
            let drain = match *phase {
                Phase::Serving => Drain { since: now, until, patience },
                Phase::Draining(drain) => {
                    Drain { until: drain.until.min(until), patience: drain.patience.min(patience), ..drain }
                }
                Phase::Stopped => return false,
            };
            let changed = *phase != Phase::Draining(drain);
            *phase = Phase::Draining(drain);
            changed
        });
    }

    /// Drops whatever is left.
    pub(crate) fn stop(&self) {
        self.phase.send_replace(Phase::Stopped);
    }

    /// Everything is gone: tells whoever waits.
    pub(crate) fn end(&self) {
        let callbacks = {
            let mut ended = self.ended.lock();
            ended.done = true;
            std::mem::take(&mut ended.callbacks)
        };
        // Outside the lock: a callback may call back.
        callbacks.into_iter().for_each(|callback| callback());
    }

    /// Calls `callback` once when everything is gone, at once where it is.
    pub(crate) fn on_end(&self, callback: Callback) {
        let now = {
            let mut ended = self.ended.lock();
            if ended.done {
                Some(callback)
            } else {
                ended.callbacks.push(callback);
                None
            }
        };
        if let Some(callback) = now {
            callback();
        }
    }

    /// Whether everything is dropped, or about to be.
    pub(crate) fn has_stopped(&self) -> bool {
        *self.phase.borrow() == Phase::Stopped
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.lock().done
    }
}

/// Waits for the server's end to begin.
pub(crate) async fn draining(phase: &mut watch::Receiver<Phase>) -> Option<Drain> {
    match phase.wait_for(|phase| *phase != Phase::Serving).await.as_deref() {
        Ok(Phase::Draining(drain)) => Some(*drain),
        _ => None,
    }
}

/// Waits until the server's end has no more patience with a client that is waited for since `begun`.
///
/// Not from the end's beginning alone: a connection may have waited in the kernel's queue until then.
pub(crate) async fn out_of_patience(phase: &mut watch::Receiver<Phase>, begun: std::time::Instant) {
    while let Some(drain) = draining(phase).await {
        let over = drain.since.max(begun.into()) + drain.patience;
        tokio::select! {
            () = tokio::time::sleep_until(over) => return,
            // A second `close` may have less.
            changed = phase.changed() => if changed.is_err() { return },
        }
    }
}
