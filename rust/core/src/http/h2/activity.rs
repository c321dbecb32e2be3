//! What goes on on one connection, to tell when nothing does, and whose fault that is.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::Config;

/// How long a client that was told to go, and has no stream left, may take to do so.
const GOODBYE: Duration = Duration::from_secs(2);
/// The least time between two looks at what goes on.
const SHORTEST_LOOK: Duration = Duration::from_millis(50);

/// The streams of one connection, counted. A lock and not atomics: what belongs together changes together, and one that
/// nobody waits for costs no more than they do.
pub(super) struct Activity(Mutex<Going>);

struct Going {
    /// Streams whose response is not handed over whole.
    streams: usize,
    /// Those of them whose request is being read or answered: not the client's turn.
    answering: usize,
    /// When the first stream began, the client took some of a response, or the last stream ended.
    since: Instant,
    /// Before the first stream.
    first: bool,
}

pub(super) enum Verdict {
    Fine,
    /// No stream for too long.
    Idle,
    /// The client takes nothing of what is ready for it.
    Stalled,
}

impl Activity {
    /// For a connection that began then.
    pub(super) fn new(since: Instant) -> Self {
        Activity(Mutex::new(Going { streams: 0, answering: 0, since, first: true }))
    }

    /// A stream begins.
    pub(super) fn opened(&self) {
        let mut going = self.0.lock();
        // While others are open this is no progress of theirs: a client that takes nothing could win time by it.
        if going.streams == 0 {
            going.since = Instant::now();
        }
        going.streams += 1;
        going.answering += 1;
        going.first = false;
    }

    /// A stream's answer is there. From here on it is the client's turn.
    pub(super) fn answered(&self) {
        let mut going = self.0.lock();
        // The first that is the client's turn begins its time.
        if going.streams == going.answering {
            going.since = Instant::now();
        }
        going.answering -= 1;
    }

    /// A stream's answer goes on, and some of it is still to be made: the client waits for the server again.
    pub(super) fn more_to_come(&self) {
        self.0.lock().answering += 1;
    }

    /// A stream ends, `answered` before or in one step.
    pub(super) fn ended(&self, answered: bool) {
        let mut going = self.0.lock();
        going.streams -= 1;
        going.answering -= usize::from(!answered);
        if going.streams == 0 {
            going.since = Instant::now();
        }
    }

    /// How many streams have begun and are not done with, also those that were reset while a handler had them.
    pub(super) fn streams(&self) -> usize {
        self.0.lock().streams
    }

    /// The client took something, or was told to go.
    pub(super) fn touch(&self) {
        self.0.lock().since = Instant::now();
    }

    /// When to look again: at the end of the client's patience, but never later than the shortest that it could get
    /// meanwhile, because streams that begin and end do not wake whoever looks.
    pub(super) fn next_look(&self, config: &Config, told: bool) -> Instant {
        let shortest = config.write_timeout.min(config.keepalive_timeout).min(config.header_timeout);
        let latest = Instant::now() + shortest.max(SHORTEST_LOOK);
        let going = self.0.lock();
        going.patience(config, told).map_or(latest, |patience| (going.since + patience).min(latest))
    }

    /// `blocked` is since when the client takes nothing of what was written.
    pub(super) fn verdict(&self, config: &Config, told: bool, blocked: Option<Instant>) -> Verdict {
        if blocked.is_some_and(|since| since.elapsed() >= config.write_timeout) {
            return Verdict::Stalled;
        }
        let going = self.0.lock();
        match going.patience(config, told) {
            Some(patience) if going.since.elapsed() < patience => Verdict::Fine,
            Some(_) if going.streams == 0 => Verdict::Idle,
            Some(_) => Verdict::Stalled,
            None => Verdict::Fine,
        }
    }
}

impl Going {
    /// How long nothing may happen; none where it is not the client's turn.
    fn patience(&self, config: &Config, told: bool) -> Option<Duration> {
        match (self.streams, self.answering) {
            (0, _) if told => Some(GOODBYE),
            (0, _) if self.first => Some(config.header_timeout),
            (0, _) => Some(config.keepalive_timeout),
            (streams, answering) if streams > answering => Some(config.write_timeout),
            _ => None,
        }
    }
}
