//! Who sends or takes a body drop by drop, and so keeps a connection for ever with a byte now and then.

use std::time::Instant;

/// What counts as progress: less than this within a time-out is none. With the default of 30 seconds that is 137 bytes a
/// second, which the slowest of mobile networks does tenfold.
pub(crate) const LEAST: u64 = 4 * 1024;

/// How a body gets on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    since: Instant,
    moved: u64,
}

impl Pace {
    /// A body of which nothing has moved.
    pub(crate) fn begin(now: Instant) -> Self {
        Pace { since: now, moved: 0 }
    }

    /// Some of it has.
    pub(crate) fn moved(&mut self, bytes: usize, now: Instant) {
        self.moved = self.moved.saturating_add(bytes as u64);
        if self.moved >= LEAST {
            *self = Pace::begin(now);
        }
    }

    /// Since when there was no progress.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn drops_are_no_progress_and_much_is() {
        let begin = Instant::now();
        let mut pace = Pace::begin(begin);
        for second in 1..LEAST {
            pace.moved(1, begin + Duration::from_secs(second));
            assert_eq!(pace.since(), begin);
        }
        let last = begin + Duration::from_secs(LEAST);
        pace.moved(1, last);
        assert_eq!(pace.since(), last);
    }
}
