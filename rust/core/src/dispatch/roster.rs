//! Who answers here: each handler by name, and where its calls are made.

use std::any::Any;
use std::sync::{Arc, Weak};

use super::{Judge, Runs};
use crate::locks::Mutex;

/// What settles where the calls of a handler are made.
#[derive(Debug, Clone)]
pub enum Placing {
    /// It is always there, as `dispatch` says, or because the handler cannot be called elsewhere.
    Set(Runs),
    /// Inline or on the pool, as a judge says.
    Auto(Arc<Judge>),
}

/// What is known of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Where it runs: `inline`, `threads`, `asyncio`.
    pub runs: &'static str,
    /// Why there, for people.
    pub why: String,
    /// How often it was moved to inline, and back.
    pub moves: (u32, u32),
    /// The paths that run on the pool though it is inline.
    pub slow_paths: Vec<String>,
}

impl Placing {
    /// Where that is just now, and why.
    pub fn tell(&self) -> Told {
        match self {
            Placing::Set(runs) => {
                let why = if *runs == Runs::Asyncio { "it is async, or as dispatch says" } else { "as dispatch says" };
                Told { runs: runs.label(), why: why.into(), moves: (0, 0), slow_paths: Vec::new() }
            }
            Placing::Auto(judge) => {
                let is_inline = judge.is_inline();
                let slow_paths = if is_inline { judge.slow_paths() } else { Vec::new() };
                let runs = if is_inline { "inline" } else { "threads" };
                Told { runs, why: judge.why(), moves: judge.moves(), slow_paths }
            }
        }
    }
}

/// The handlers of a server, as long as they live.
#[derive(Default)]
pub struct Roster(Mutex<Vec<Entry>>);

struct Entry {
    name: Box<str>,
    placing: Placing,
    alive: Weak<dyn Any + Send + Sync>,
}

impl Roster {
    /// Adds a handler, which is gone when `alive` is.
    pub fn add(&self, name: &str, placing: Placing, alive: Weak<dyn Any + Send + Sync>) {
        let mut entries = self.0.lock();
        if entries.len() == entries.capacity() {
            // Forgets those that are gone; with room for as many again, so that a hundred thousand routes take no longer each.
            entries.retain(|entry| entry.alive.strong_count() > 0);
            let room = entries.len() + 1;
            entries.reserve(room);
        }
        entries.push(Entry { name: name.into(), placing, alive });
    }

    /// The first `most` of those that live, in the order in which they were added, and how many there are in all.
    pub(crate) fn tell(&self, most: usize) -> (Vec<(Box<str>, Told)>, usize) {
        let entries = self.0.lock();
        let live = || entries.iter().filter(|entry| entry.alive.strong_count() > 0);
        let told = live().take(most).map(|entry| (entry.name.clone(), entry.placing.tell())).collect();
        (told, live().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_that_are_gone_are_told_no_longer() {
        let roster = Roster::default();
        let (stays, goes): (Arc<dyn Any + Send + Sync>, Arc<dyn Any + Send + Sync>) = (Arc::new(1), Arc::new(2));
        roster.add("stays", Placing::Set(Runs::Asyncio), Arc::downgrade(&stays));
        roster.add("goes", Placing::Set(Runs::Inline), Arc::downgrade(&goes));
        assert_eq!(roster.tell(1).1, 2);
        drop(goes);
        let (told, all) = roster.tell(10);
        assert_eq!((told.len(), all, &*told[0].0, told[0].1.runs), (1, 1, "stays", "asyncio"));
    }
}
