//! The last lines of a server's log, kept for whoever looks at its dashboard: what the [`Observer`] is told, and what the
//! language around notes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::{Observer, Report, Stage};
use crate::locks::Mutex;

/// Lines that are kept of what is daily business, and again of what is not: a flood of the one is not to wash away the other.
const LINES: usize = 100;
/// The most bytes of a line that are kept: strangers may make them long.
const LONGEST: usize = 500;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Daily business, as what clients do wrong.
    Info,
    /// Something that is to be mended before it fails.
    Warning,
    /// Something failed.
    Error,
}

impl Level {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }

    fn of(stage: Stage) -> Self {
        match stage {
            Stage::Admission | Stage::Handshake | Stage::Request => Level::Info,
            Stage::Warning | Stage::AccessLog => Level::Warning,
            Stage::Accept | Stage::Certificate => Level::Error,
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Counted from 1 on.
    pub number: u64,
    /// When it was written.
    pub time: SystemTime,
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub message: String,
}

/// The last lines.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    daily: VecDeque<Line>,
    others: VecDeque<Line>,
    written: u64,
}

impl Recent {
    /// Keeps a line, in place of the oldest where there are many.
    pub fn note(&self, level: Level, message: &str) {
        let message = match message.get(..message.floor_char_boundary(LONGEST)) {
            Some(beginning) if beginning.len() < message.len() => format!("{beginning}…"),
            _ => message.to_string(),
        };
        let mut kept = self.0.lock();
        kept.written += 1;
        let line = Line { number: kept.written, time: SystemTime::now(), level, message };
        let lines = if level == Level::Info { &mut kept.daily } else { &mut kept.others };
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines behind that number, the oldest first.
    pub fn since(&self, number: u64) -> Vec<Line> {
        let kept = self.0.lock();
        let lines = kept.daily.iter().chain(&kept.others).filter(|line| line.number > number);
        let mut lines: Vec<_> = lines.cloned().collect();
        drop(kept);
        lines.sort_unstable_by_key(|line| line.number);
        lines
    }
}

/// An observer whose reports are kept on their way.
pub(crate) struct Remembering {
    pub(crate) recent: Arc<Recent>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Observer for Remembering {
    fn report(&self, report: Report) {
        self.recent.note(Level::of(report.stage), &report.message);
        self.observer.report(report);
    }

    fn access(&self, lines: &str) {
        self.observer.access(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_long_ones_cut() {
        let recent = Recent::default();
        recent.note(Level::Error, "1");
        for number in 2..=LINES + 20 {
            recent.note(Level::Info, &number.to_string());
        }
        let lines = recent.since(0);
        assert_eq!(
            (lines.len(), lines[0].number, lines[1].number, lines[1].message.as_str()),
            (LINES + 1, 1, 21, "21")
        );
        recent.note(Level::Error, &"ü".repeat(LONGEST));
        let [line] = &recent.since(LINES as u64 + 20)[..] else { panic!() };
        assert_eq!(line.message, format!("{}…", "ü".repeat(LONGEST / 2)));
        assert!(recent.since(LINES as u64 + 21).is_empty());
    }
}
