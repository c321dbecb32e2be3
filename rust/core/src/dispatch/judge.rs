//! Where the calls of a handler are to be made, learnt from how long they take.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Job;
use crate::locks::Mutex;

/// A call on the pool this short counts for calling the handler inline.
const SHORT: Duration = Duration::from_millis(1);
/// A call this long sends its path, or the handler, to the pool.
const LONG: Duration = Duration::from_millis(5);
/// Short calls in a row that make a handler inline, the first time. Each relapse takes four times as many.
const PROOF: u32 = 32;
const MOST_PROOF: u32 = 32 * 4 * 4 * 4 * 4;
/// Paths that are judged apart because they were long. With more than these it is the handler that is long.
const MOST_PATHS: usize = 16;
/// The longest path that is judged apart.
const LONGEST_PATH: usize = 256;

thread_local! {
    /// When the handler that runs on this thread really began; see [`handler_begins`].
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Says that a handler begins only now: what was waited for before, such as an interpreter's lock, is not its fault.
pub fn handler_begins() {
    BEGAN.set(Some(Instant::now()));
}

/// Judges one handler: as a whole, and by the paths whose calls were long. A function that answers many routes stays inline
/// for the short ones.
#[derive(Debug, Default)]
pub struct Judge {
    whole: Mutex<Verdict>,
    long: Mutex<HashMap<Box<[u8]>, Verdict>>,
    /// How many `long` has.
    paths: AtomicUsize,
    moves: Mutex<(u32, u32)>,
}

/// What is known of a handler, or of one of its paths.
#[derive(Debug, Default, Clone, Copy)]
struct Verdict {
    inline: bool,
    /// Short calls in a row on the pool.
    streak: u32,
    /// How often it went back to the pool.
    relapses: u32,
}

impl Verdict {
    /// Short calls in a row that are asked for now.
    fn proof(self) -> u32 {
        PROOF.saturating_mul(4u32.saturating_pow(self.relapses)).min(MOST_PROOF)
    }

    /// Learns from a call that was not long. Whether that makes it inline.
    fn learn(&mut self, took: Duration) -> bool {
        if self.inline {
            return false;
        }
        self.streak = if took >= SHORT { 0 } else { self.streak + 1 };
        self.inline = self.streak >= self.proof();
        self.inline
    }

    /// It is called on the pool again. Whether it was not.
    fn relapse(&mut self) -> bool {
        self.streak = 0;
        if self.inline {
            self.inline = false;
            self.relapses += 1;
            return true;
        }
        false
    }
}

impl Judge {
    /// Whether it runs inline, but for the paths that do not.
    pub fn is_inline(&self) -> bool {
        self.whole.lock().inline
    }

    /// Whether calls of that path are made inline.
    pub(super) fn is_inline_for(&self, path: &str) -> bool {
        if self.paths.load(Relaxed) > 0
            && let Some(verdict) = self.long.lock().get(path.as_bytes())
        {
            return verdict.inline;
        }
        self.is_inline()
    }

    /// How often it, or a path of it, became inline, and went back to the pool because a call was long.
    pub fn moves(&self) -> (u32, u32) {
        *self.moves.lock()
    }

    /// The paths that run on the pool though the handler is inline.
    pub fn slow_paths(&self) -> Vec<String> {
        let long = self.long.lock();
        let on_pool = long.iter().filter(|(_, verdict)| !verdict.inline);
        on_pool.map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
    }

    /// Where it runs and why, for people.
    pub fn why(&self) -> String {
        let whole = *self.whole.lock();
        match (whole.inline, whole.relapses) {
            (true, _) => format!("{} calls in a row took less than {SHORT:?}", whole.proof()),
            (false, 0) => format!("it has not yet taken less than {SHORT:?} for {} calls in a row", whole.proof()),
            (false, _) => format!("calls of more than {MOST_PATHS} paths took {LONG:?} or more"),
        }
    }

    fn learn(&self, path: &[u8], took: Duration) {
        if took >= LONG {
            return self.send_to_pool(path);
        }
        if self.paths.load(Relaxed) > 0
            && let Some(verdict) = self.long.lock().get_mut(path)
        {
            if verdict.learn(took) {
                self.moves.lock().0 += 1;
            }
            return;
        }
        if self.whole.lock().learn(took) {
            self.moves.lock().0 += 1;
        }
    }

    /// A call of that path is or was too long to be made inline.
    fn send_to_pool(&self, path: &[u8]) {
        let mut long = self.long.lock();
        let relapsed = if let Some(verdict) = long.get_mut(path) {
            verdict.relapse()
        } else if long.len() < MOST_PATHS && path.len() <= LONGEST_PATH {
            long.insert(path.into(), Verdict { relapses: 1, ..Verdict::default() });
            self.is_inline()
        } else {
            long.clear();
            self.whole.lock().relapse()
        };
        self.paths.store(long.len(), Relaxed);
        if relapsed {
            self.moves.lock().1 += 1;
        }
    }
}

/// One call before its judge.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    judge: Arc<Judge>,
    path: Bytes,
}

impl Case {
    pub(super) fn new(judge: Arc<Judge>, path: Bytes) -> Self {
        Case { judge, path }
    }

    /// Measures a call and learns from it.
    pub(super) fn watch(&self, call: impl FnOnce()) {
        let started = Instant::now();
        BEGAN.set(None);
        call();
        self.judge.learn(&self.path, BEGAN.take().unwrap_or(started).elapsed());
    }

    /// The call is too long already.
    pub(crate) fn send_to_pool(&self) {
        self.judge.send_to_pool(&self.path);
    }
}

impl Job {
    /// Who is to judge it, where somebody is.
    pub(crate) fn case(&self) -> Option<Case> {
        self.judge.as_ref().map(|judge| Case::new(judge.clone(), self.request.target.path_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(judge: &Arc<Judge>, path: &'static str, took: Duration) {
        Case::new(judge.clone(), path.into()).watch(|| BEGAN.set(Instant::now().checked_sub(took)));
    }

    fn short(judge: &Arc<Judge>, path: &'static str, times: u32) {
        (0..times).for_each(|_| call(judge, path, Duration::ZERO));
    }

    #[test]
    fn short_calls_promote_and_a_long_one_sends_its_path_away() {
        let judge = Arc::default();
        short(&judge, "/", PROOF - 1);
        assert!(!judge.is_inline_for("/"));
        short(&judge, "/", 1);
        assert!(judge.is_inline_for("/") && judge.is_inline_for("/never seen"));
        call(&judge, "/long", Duration::from_secs(1));
        assert!(judge.is_inline_for("/") && !judge.is_inline_for("/long"));
        assert_eq!(judge.slow_paths(), ["/long"]);
        short(&judge, "/long", PROOF);
        assert!(!judge.is_inline_for("/long"), "the second time takes more proof");
        short(&judge, "/long", 3 * PROOF);
        assert!(judge.is_inline_for("/long"));
        assert_eq!(judge.moves(), (2, 1));
        assert_eq!(judge.why(), "32 calls in a row took less than 1ms");
    }

    #[test]
    fn a_handler_that_is_long_on_many_paths_goes_to_the_pool() {
        let judge: Arc<Judge> = Arc::default();
        short(&judge, "/", PROOF);
        let long = Duration::from_millis(6);
        let paths: Vec<&'static str> = (0..=MOST_PATHS).map(|n| &*format!("/{n}").leak()).collect();
        paths[..MOST_PATHS].iter().for_each(|path| call(&judge, path, long));
        assert!(judge.is_inline());
        call(&judge, paths[MOST_PATHS], long);
        assert!(!judge.is_inline());
        assert!(judge.slow_paths().is_empty());
        short(&judge, "/", PROOF);
        assert!(!judge.is_inline());
        short(&judge, "/", 3 * PROOF);
        assert!(judge.is_inline());
    }

    #[test]
    fn a_middling_call_on_the_pool_begins_the_proof_anew() {
        let judge = Arc::default();
        short(&judge, "/", PROOF - 1);
        call(&judge, "/", Duration::from_millis(2));
        short(&judge, "/", PROOF - 1);
        assert!(!judge.is_inline());
    }
}
