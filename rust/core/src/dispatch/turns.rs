//! Calls that wait, each connection's in turn: one that has sent a hundred requests at once does not hold up those with one.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// A queue in which connections take turns; within one, first come is first served.
#[derive(Debug)]
pub struct Turns<T> {
    /// The first of each connection that has any.
    next: VecDeque<(u64, T)>,
    /// What else it has; an entry for each that is in `next`.
    more: HashMap<u64, VecDeque<T>, BuildHasherDefault<ById>>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Turns { next: VecDeque::new(), more: HashMap::default() }
    }
}

impl<T> Turns<T> {
    /// Adds something of a connection.
    pub fn push(&mut self, connection: u64, item: T) {
        match self.more.entry(connection) {
            Entry::Occupied(mut more) => more.get_mut().push_back(item),
            Entry::Vacant(more) => {
                more.insert(VecDeque::new());
                self.next.push_back((connection, item));
            }
        }
    }

    /// Takes what is next.
    pub fn pop(&mut self) -> Option<T> {
        let (connection, item) = self.next.pop_front()?;
        if let Entry::Occupied(mut more) = self.more.entry(connection) {
            match more.get_mut().pop_front() {
                Some(next) => self.next.push_back((connection, next)),
                None => drop(more.remove()),
            }
        }
        Some(item)
    }

    /// How much waits.
    pub fn len(&self) -> usize {
        self.next.len() + self.more.values().map(VecDeque::len).sum::<usize>()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }
}

/// Spreads numbers that count up, which are ours and no peer's choice.
#[derive(Debug, Default)]
struct ById(u64);

impl Hasher for ById {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0 << 8 | u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::Turns;

    #[test]
    fn connections_take_turns() {
        let mut turns = Turns::default();
        for item in ["a1", "a2", "a3", "b1", "c1", "c2"] {
            turns.push(u64::from(item.as_bytes()[0]), item);
        }
        assert_eq!(turns.len(), 6);
        let first: Vec<_> = (0..3).filter_map(|_| turns.pop()).collect();
        assert_eq!(first, ["a1", "b1", "c1"]);
        turns.push(u64::from(b'b'), "b2");
        let rest: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(rest, ["a2", "c2", "b2", "a3"]);
        assert!(turns.is_empty() && turns.more.is_empty());
    }
}
