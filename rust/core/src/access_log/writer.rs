//! The thread that writes.

use std::io;
use std::time::{Duration, Instant};

use super::place::Place;
use super::queue::{Batch, Queue};
use super::{LogTarget, tell};
use crate::error::Observer;
use crate::metrics::Metrics;

/// How long to wait before what failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// How often it is told at most that lines were dropped.
const TELL: Duration = Duration::from_secs(10);

/// Writes what comes until the log is closed, and then what is left.
pub(super) fn run(queue: &Queue, target: &LogTarget, observer: &dyn Observer, metrics: &Metrics) {
    let mut writer = Writer {
        target,
        observer,
        metrics,
        place: Place::Program,
        failing: false,
        gave_up: false,
        dropped: 0,
        told: None,
    };
    let mut spare = Vec::new();
    loop {
        let Batch { mut lines, place, last } = queue.take(spare);
        if let Some(place) = place {
            writer.place = place;
        }
        let whole = writer.write(queue, &lines);
        if whole {
            writer.recovered(queue, last);
        }
        if last {
            return;
        }
        lines.clear();
        spare = lines;
    }
}

struct Writer<'a> {
    target: &'a LogTarget,
    observer: &'a dyn Observer,
    metrics: &'a Metrics,
    place: Place,
    /// It was told that nothing can be written.
    failing: bool,
    /// Its last lines could not be written either, which was told.
    gave_up: bool,
    /// Lines that were dropped and not told of yet.
    dropped: u64,
    /// When that was told last.
    told: Option<Instant>,
}

impl Writer<'_> {
    /// Writes lines, as long as it takes; whether all of them were written: what cannot be at the end is given up.
    fn write(&mut self, queue: &Queue, lines: &[u8]) -> bool {
        if let Place::Program = self.place {
            if !lines.is_empty() {
                // Every line is ASCII.
                self.observer.access(&String::from_utf8_lossy(lines));
            }
            return true;
        }
        let mut at = 0;
        while let Some(left) = lines.get(at..).filter(|left| !left.is_empty()) {
            match self.place.write(left, self.target) {
                Ok(written) => at += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed(&error);
                    let (place, closed) = queue.pause(AGAIN);
                    if let Some(place) = place {
                        self.place = place;
                    } else if closed {
                        self.give_up(queue, lines, at);
                        return false;
                    }
                }
            }
        }
        true
    }

    fn failed(&mut self, error: &io::Error) {
        if std::mem::replace(&mut self.failing, true) {
            return;
        }
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let name = self.target.name();
        tell(
            self.observer,
            format!(
                "the {name} cannot be written: {text}; about 2 MiB of lines wait, more are dropped and counted (access_log_dropped), and requests are answered as before"
            ),
        );
    }

    /// All that there was is written.
    fn recovered(&mut self, queue: &Queue, last: bool) {
        if self.gave_up {
            return;
        }
        let name = self.target.name();
        self.dropped += queue.take_dropped();
        let (dropped, recently) = (self.dropped, self.told.is_some_and(|told| told.elapsed() < TELL));
        if std::mem::take(&mut self.failing) {
            tell(self.observer, format!("the {name} is written again; {dropped} lines were dropped"));
        } else if dropped > 0 && (!recently || last) {
            tell(self.observer, format!("the {name} is written too slowly: {dropped} lines were dropped"));
        } else {
            return;
        }
        (self.dropped, self.told) = (0, Some(Instant::now()));
    }

    fn give_up(&mut self, queue: &Queue, lines: &[u8], at: usize) {
        self.gave_up = true;
        self.dropped += queue.take_dropped();
        let left = memchr::memchr_iter(b'\n', lines.get(at..).unwrap_or_default()).count() as u64;
        self.metrics.access_log_dropped.add_many(left);
        let name = self.target.name();
        tell(
            self.observer,
            format!("the {name} was closed with {} lines that could not be written", self.dropped + left),
        );
    }
}
