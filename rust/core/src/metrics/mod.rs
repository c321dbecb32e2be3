//! What a server counts. [`list`] is the one list of it, by which `stats()` and `/metrics` show the same numbers;
//! [`exposition`] is how Prometheus wants to read them.

mod exposition;
mod labels;
mod list;
mod page;
mod process;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::Version;

pub(crate) use labels::{Close, HandshakeFailure, Turned};
pub use list::{Counted, Kind, Stat, statistics};
pub(crate) use page::{Format, render};

use crate::error::Refusal;
use crate::record::Finished;
use labels::{CLOSES, HANDSHAKE_FAILURES, TURNED};

const VERSIONS: [(&str, Version); 3] = [("1.0", Version::HTTP_10), ("1.1", Version::HTTP_11), ("2", Version::HTTP_2)];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// A counter, or the current number of something.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Counts one more, and says how many that makes.
    pub(crate) fn add(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }

    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of one server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections_accepted: Counter,
    pub(crate) connections_open: Counter,
    turned: [Counter; TURNED.len()],
    closed: [Counter; CLOSES.len()],
    pub(crate) accept_errors: Counter,
    pub(crate) handshakes: Counter,
    handshake_failures: [Counter; HANDSHAKE_FAILURES.len()],
    requests: [Counter; VERSIONS.len()],
    pub(crate) requests_in_flight: Counter,
    pub(crate) requests_aborted: Counter,
    responses: [Counter; CLASSES.len()],
    refusals: [Counter; Refusal::ALL.len()],
    pub(crate) handler_failures: Counter,
    pub(crate) loop_takeovers: Counter,
    pub(crate) websockets: Counter,
    pub(crate) websockets_open: Counter,
    pub(crate) websocket_messages_received: Counter,
    pub(crate) websocket_messages_sent: Counter,
}

impl Metrics {
    pub(crate) fn turned(&self, why: Turned) {
        self.turned[why as usize].add();
    }

    pub(crate) fn closed(&self, why: Close) {
        self.closed[why as usize].add();
    }

    pub(crate) fn handshake_failed(&self, why: HandshakeFailure) {
        self.handshake_failures[why as usize].add();
    }

    pub(crate) fn request(&self, version: Version) {
        if let Some(at) = VERSIONS.iter().position(|(_, known)| *known == version) {
            self.requests[at].add();
        }
    }

    pub(crate) fn response(&self, status: http::StatusCode) {
        if let Some(counter) = self.responses_like(status) {
            counter.add();
        }
    }

    /// Takes back what [`Metrics::response`] counted too early.
    pub(crate) fn no_response(&self, status: http::StatusCode) {
        if let Some(counter) = self.responses_like(status) {
            counter.remove();
        }
    }

    fn responses_like(&self, status: http::StatusCode) -> Option<&Counter> {
        self.responses.get(usize::from(status.as_u16() / 100).wrapping_sub(1))
    }

    pub(crate) fn refused(&self, why: Refusal) {
        self.refusals[why as usize].add();
    }

    /// A request has ended.
    #[expect(clippy::unused_self, reason = "histograms are to come")]
    pub(crate) fn finished(&self, _finished: &Finished<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::default();
        metrics.request(Version::HTTP_2);
        metrics.response(http::StatusCode::NOT_FOUND);
        metrics.refused(Refusal::Host);
        let shown = |name: &str, label: &str| {
            let counted = metrics.list().into_iter().find(|counted| counted.name == name).unwrap();
            let Stat::Labelled(_, labels) = counted.stat else { panic!("{name}") };
            labels.iter().find(|(known, _)| *known == label).unwrap().1
        };
        assert_eq!(shown("requests", "2"), 1);
        assert_eq!(shown("responses", "4xx"), 1);
        assert_eq!(shown("requests_refused", "host"), 1);
    }
}
