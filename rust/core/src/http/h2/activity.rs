//! What goes on on one connection, to tell when nothing does, and whose fault that is.

use std::time::Duration;

use tokio::time::Instant;

use super::watched::Seen;
use crate::config::Config;
use crate::http::pace;
use crate::locks::Mutex;

/// How long a client that was told to go, and has no stream left, may take to do so.
const GOODBYE: Duration = Duration::from_secs(2);
/// The least time between two looks at what goes on.
const SHORTEST_LOOK: Duration = Duration::from_millis(50);

/// The streams of one connection, counted. A lock and not atomics: what belongs together changes together, and one that
/// nobody waits for costs no more than they do.
pub(super) struct Activity {
    going: Mutex<Going>,
    seen: Seen,
}

struct Going {
    /// Streams whose response is not handed over whole.
    streams: usize,
    /// Those of them whose request is being read or answered: not the client's turn.
    answering: usize,
    /// When the first stream began, the client took some of a response, or the last stream ended.
    since: Instant,
    /// How many bytes of responses had been written by then.
    data: u64,
    /// Before the first stream.
    first: bool,
    /// Bytes of headers that streams have.
    headers: usize,
}

pub(super) enum Verdict {
    Fine,
    /// No stream for too long.
    Idle,
    /// The client takes nothing of what is ready for it.
    Stalled,
    /// The client does not finish what it began to send.
    Slow,
}

impl Activity {
    /// For a connection that began then.
    pub(super) fn new(since: Instant, seen: Seen) -> Self {
        Activity {
            going: Mutex::new(Going { streams: 0, answering: 0, since, data: 0, first: true, headers: 0 }),
            seen,
        }
    }

    /// A stream begins, with so many bytes of headers.
    pub(super) fn opened(&self, headers: usize) {
        let mut going = self.going.lock();
        // While others are open this is no progress of theirs: a client that takes nothing could win time by it.
        if going.streams == 0 {
            going.restart(self.seen.data());
        }
        going.streams += 1;
        going.answering += 1;
        going.first = false;
        going.headers += headers;
    }

    /// A stream's answer is there. From here on it is the client's turn.
    pub(super) fn answered(&self) {
        let mut going = self.going.lock();
        // The first that is the client's turn begins its time.
        if going.streams == going.answering {
            going.restart(self.seen.data());
        }
        going.answering -= 1;
    }

    /// A stream's answer goes on, and some of it is still to be made: the client waits for the server again.
    pub(super) fn more_to_come(&self) {
        self.going.lock().answering += 1;
    }

    /// A stream ends, `answered` before or in one step.
    pub(super) fn ended(&self, answered: bool, headers: usize, now: std::time::Instant) {
        let mut going = self.going.lock();
        going.streams -= 1;
        going.headers -= headers;
        going.answering -= usize::from(!answered);
        if going.streams == 0 {
            (going.since, going.data) = (now.into(), self.seen.data());
        }
    }

    /// How many bytes of headers they have.
    pub(super) fn headers(&self) -> usize {
        self.going.lock().headers
    }

    /// How many streams have begun and are not done with, also those that were reset while a handler had them.
    pub(super) fn streams(&self) -> usize {
        self.going.lock().streams
    }

    /// The client took something. A few bytes win it no time.
    pub(super) fn touch(&self) {
        let data = self.seen.data();
        let mut going = self.going.lock();
        if data.saturating_sub(going.data) >= pace::LEAST {
            going.restart(data);
        }
    }

    /// The client was told to go.
    pub(super) fn told(&self) {
        self.going.lock().restart(self.seen.data());
    }

    /// A request was in order.
    pub(super) fn asked(&self) {
        self.seen.asked();
    }

    /// A frame of a WebSocket was sent.
    pub(super) fn spoke(&self) {
        self.seen.spoke();
    }

    /// The setting by which it is idle.
    pub(super) fn idle_setting(&self) -> &'static str {
        if self.going.lock().first { "header_timeout" } else { "keepalive_timeout" }
    }

    /// When to look again: at the end of the client's patience, but never later than the shortest that it could get
    /// meanwhile, because streams that begin and end do not wake whoever looks.
    pub(super) fn next_look(&self, config: &Config, told: bool) -> Instant {
        let shortest = config.write_timeout.min(config.keepalive_timeout).min(config.header_timeout);
        let latest = Instant::now() + shortest.max(SHORTEST_LOOK);
        let going = self.going.lock();
        going.patience(config, told).map_or(latest, |patience| (going.since + patience).min(latest))
    }

    pub(super) fn verdict(&self, config: &Config, told: bool) -> Verdict {
        if self.seen.blocked().is_some_and(|since| since.elapsed() >= config.write_timeout) {
            return Verdict::Stalled;
        }
        if self.seen.unfinished().is_some_and(|since| since.elapsed() >= config.header_timeout) {
            return Verdict::Slow;
        }
        let going = self.going.lock();
        match going.patience(config, told) {
            Some(patience) if going.since.elapsed() < patience => Verdict::Fine,
            Some(_) if going.streams == 0 => Verdict::Idle,
            Some(_) => Verdict::Stalled,
            None => Verdict::Fine,
        }
    }
}

impl Going {
    fn restart(&mut self, data: u64) {
        self.since = Instant::now();
        self.data = data;
    }

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
