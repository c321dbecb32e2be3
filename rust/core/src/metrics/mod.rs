//! What a server counts. [`list`] is the one list of it, by which `stats()` and `/metrics` show the same numbers;
//! [`exposition`] is how Prometheus wants to read them.

mod exposition;
mod labels;
mod list;
mod merged;
mod page;
pub(crate) mod process;
mod served;
mod sessions;
mod shards;

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use http::Version;

pub(crate) use labels::{Close, HandshakeFailure, State, Turned};
pub use list::{Counted, Kind, Latency, Stat, statistics};
pub(crate) use merged::Merged;
pub(crate) use page::{Format, render};
pub(crate) use served::{Histogram, Served};
pub use sessions::SessionCounts;

use crate::config::Config;
use crate::connection::ConnectionInfo;
use crate::dispatch::{PoolLook, Runs};
use crate::error::Refusal;
use crate::locks::Mutex;
use crate::record::Finished;
use labels::{CLOSES, HANDSHAKE_FAILURES, OUTCOMES, STATES, TURNED, place_of};
use shards::{Counter, Gauge, Shards};

const VERSIONS: [(&str, Version); 3] = [("1.0", Version::HTTP_10), ("1.1", Version::HTTP_11), ("2", Version::HTTP_2)];
const TLS_VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What one server counts.
///
/// It stands for this thread's copy of its [`Counters`], so that whoever counts just does. Only limits are kept for all
/// threads together.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counters: Shards<Counters>,
    pub(crate) connections_open: Gauge,
    pub(crate) requests_in_flight: Gauge,
    pub(crate) served: Served,
    /// Those of its requests' sessions, once it has any.
    pub(crate) sessions: OnceLock<Arc<SessionCounts>>,
    pools: Pools,
}

impl Deref for Metrics {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        self.counters.mine()
    }
}

/// What one thread has counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections_accepted: Counter,
    states: [Counter; STATES.len()],
    turned: [Counter; TURNED.len()],
    closed: [Counter; CLOSES.len()],
    pub(crate) accept_errors: Counter,
    pub(crate) network_received: Counter,
    pub(crate) network_sent: Counter,
    handshakes: [Counter; TLS_VERSIONS.len()],
    handshakes_resumed: Counter,
    handshake_failures: [Counter; HANDSHAKE_FAILURES.len()],
    requests: [Counter; VERSIONS.len()],
    pub(crate) requests_aborted: Counter,
    responses: [Counter; CLASSES.len()],
    refusals: [Counter; Refusal::ALL.len()],
    ended: [Counter; OUTCOMES.len()],
    bytes_received: Counter,
    bytes_sent: Counter,
    calls: [Counter; Runs::ALL.len()],
    pub(crate) handler_failures: Counter,
    pub(crate) loop_takeovers: Counter,
    pub(crate) websockets: Counter,
    pub(crate) websockets_open: Counter,
    pub(crate) websocket_messages_received: Counter,
    pub(crate) websocket_messages_sent: Counter,
    pub(crate) access_log_dropped: Counter,
}

impl Metrics {
    /// Nothing counted yet.
    pub(crate) fn new(config: &Config) -> Self {
        Metrics { served: Served::new(config.max_metric_series), ..Metrics::default() }
    }

    /// A request has ended.
    pub(crate) fn finished(&self, finished: &Finished<'_>) {
        let counters = self.counters.mine();
        counters.ended[place_of(finished.outcome)].add();
        counters.bytes_received.add_many(finished.received);
        counters.bytes_sent.add_many(finished.sent);
        let Finished { host, route, method, status, duration, .. } = *finished;
        self.served.observe(host, route, method, status, duration);
    }

    /// The sum of something over all threads.
    fn sum(&self, part: impl Fn(&Counters) -> &Counter) -> u64 {
        // One thread may have seen them come and another one go, so parts may be below nothing.
        self.counters.all().fold(0, |sum, counters| sum.wrapping_add(part(counters).part()))
    }

    /// Shows a pool of threads, for as long as it is there.
    pub(crate) fn show_pool(&self, name: &'static str, look: impl Fn() -> Option<PoolLook> + Send + Sync + 'static) {
        self.pools.0.lock().push((name, Box::new(look)));
    }

    /// Counts a connection as being in a state, until that is dropped.
    pub(crate) fn within(self: &Arc<Self>, state: State) -> Within {
        self.states[state as usize].add();
        Within { metrics: self.clone(), state }
    }
}

/// A connection in its state.
pub(crate) struct Within {
    metrics: Arc<Metrics>,
    state: State,
}

impl Within {
    /// From here on it is about that.
    pub(crate) fn now(&mut self, state: State) {
        self.metrics.states[self.state as usize].remove();
        self.metrics.states[state as usize].add();
        self.state = state;
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        self.metrics.states[self.state as usize].remove();
    }
}

type Look = Box<dyn Fn() -> Option<PoolLook> + Send + Sync>;

/// Pools of threads by name.
#[derive(Default)]
struct Pools(Mutex<Vec<(&'static str, Look)>>);

impl Pools {
    fn look(&self) -> Vec<(&'static str, PoolLook)> {
        self.0.lock().iter().filter_map(|(name, look)| Some((*name, look()?))).collect()
    }
}

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pools").finish_non_exhaustive()
    }
}

impl Counters {
    pub(crate) fn turned(&self, why: Turned) {
        self.turned[why as usize].add();
    }

    pub(crate) fn closed(&self, why: Close) {
        self.closed[why as usize].add();
    }

    pub(crate) fn handshake_failed(&self, why: HandshakeFailure) {
        self.handshake_failures[why as usize].add();
    }

    /// Counts a handshake that was completed.
    pub(crate) fn handshake(&self, info: &ConnectionInfo) {
        let version = TLS_VERSIONS.iter().position(|known| Some(*known) == info.tls_version);
        self.handshakes[version.unwrap_or_default()].add();
        if info.resumed {
            self.handshakes_resumed.add();
        }
    }

    /// Counts a call of a handler.
    pub(crate) fn called(&self, runs: Runs) {
        self.calls[runs as usize].add();
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

    /// Takes back what [`Counters::response`] counted too early.
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
