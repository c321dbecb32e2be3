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
    /// No longer accepting, `since` then; what is in flight is finished `until` then.
    Draining { since: Instant, until: Instant },
    /// Everything is dropped.
    Stopped,
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
    pub(crate) fn drain(&self, grace: Duration) {
        let now = Instant::now();
        // A grace of years means "wait for all": keep the sum representable.
        let until = now + grace.min(Duration::from_secs(86_400 * 365));
        self.phase.send_if_modified(|phase| {
            let (since, before) = match *phase {
                Phase::Serving => (now, None),
                Phase::Draining { since, until } => (since, Some(until)),
                Phase::Stopped => return false,
            };
            let sooner = before.is_none_or(|before| until < before);
            if sooner {
                *phase = Phase::Draining { since, until };
            }
            sooner
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

/// What a client that has begun something, but asked nothing yet, gets at the end: time for what is on the wire already.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// Waits until the server has not served for so long.
pub(crate) async fn draining_for(phase: &mut watch::Receiver<Phase>, patience: Duration) {
    let since = match phase.wait_for(|phase| *phase != Phase::Serving).await.as_deref() {
        Ok(Phase::Draining { since, .. }) => *since,
        _ => return,
    };
    tokio::time::sleep_until(since + patience).await;
}
