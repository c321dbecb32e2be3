//! The one list of what is counted: names, words and values, in the order of the documentation.

use super::labels::{CLOSES, HANDSHAKE_FAILURES, OUTCOMES, STATES, TURNED};
use super::served::{Histogram, Labels};
use super::shards::{Counter, Gauge};
use super::{CLASSES, Counters, Metrics, TLS_VERSIONS, VERSIONS};
use crate::dispatch::{PoolLook, Runs};
use crate::error::Refusal;
use crate::record::Outcome;

/// One thing that is counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// The key in `stats()`. In `/metrics` it has `portico_` before it, and `_total` behind it where it only grows.
    pub name: &'static str,
    /// What it counts.
    pub doc: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// The value.
    pub stat: Stat,
}

/// How a number moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It comes and goes.
    Gauge,
}

/// The value of one entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Stat {
    /// A number.
    Number(u64),
    /// A number for each value of a label, which has that name in `/metrics`.
    Labelled(&'static str, Vec<(&'static str, u64)>),
    /// The same, of a number of seconds.
    Seconds(&'static str, Vec<(&'static str, f64)>),
}

/// How long requests of one kind took.
#[derive(Debug, Clone, PartialEq)]
pub struct Latency {
    /// The name of the host's context; empty for the default one, and without any.
    pub host: String,
    /// The pattern of the route; empty where no router has led to who answered.
    pub route: String,
    /// The method; `other` for unusual ones.
    pub method: &'static str,
    /// The class of the status, as `2xx`; `none` where no response was begun.
    pub status: &'static str,
    /// How many there were.
    pub count: u64,
    /// How many seconds they took together.
    pub seconds: f64,
    /// By bound in seconds, how many took no longer.
    pub buckets: Vec<(f64, u64)>,
}

impl Metrics {
    /// How long requests took.
    pub(crate) fn latencies(&self) -> Vec<Latency> {
        let tell = |(labels, histogram): (Labels, Histogram)| Latency {
            host: labels.host().to_string(),
            route: labels.route().to_string(),
            method: labels.method(),
            status: labels.status(),
            count: histogram.count(),
            seconds: histogram.sum(),
            buckets: histogram.buckets().collect(),
        };
        self.served.tell().into_iter().map(tell).collect()
    }

    fn total(&self, name: &'static str, doc: &'static str, part: impl Fn(&Counters) -> &Counter) -> Counted {
        Counted { name, doc, kind: Kind::Counter, stat: Stat::Number(self.sum(part)) }
    }

    /// By a label, which has that name, and these values in the order of the counters.
    fn by<const N: usize>(
        &self,
        label: &'static str,
        values: [&'static str; N],
        name: &'static str,
        doc: &'static str,
        part: impl Fn(&Counters) -> &[Counter; N],
    ) -> Counted {
        let numbers = values.into_iter().enumerate();
        let numbers = numbers.map(|(at, value)| (value, self.sum(|counters| &part(counters)[at]))).collect();
        Counted { name, doc, kind: Kind::Counter, stat: Stat::Labelled(label, numbers) }
    }

    /// Everything that is counted.
    pub(crate) fn list(&self) -> Vec<Counted> {
        let mut list = self.of_connections();
        list.extend(self.of_requests());
        list.extend(self.sessions.get().cloned().unwrap_or_default().list());
        list.extend(self.of_pools());
        list
    }

    fn of_connections(&self) -> Vec<Counted> {
        vec![
            self.total("connections_accepted", "connections let in since the start", |c| &c.connections_accepted),
            now("connections_open", "connections open now", &self.connections_open),
            self.by(
                "state",
                STATES.map(|(label, _)| label),
                "connections_by_state",
                "connections open now, by what they are about",
                |c| &c.states,
            )
            .now(),
            self.by(
                "reason",
                TURNED.map(|(label, _)| label),
                "connections_turned_away",
                "connections closed before they were served: the limit that was reached, or what was wrong about the PROXY protocol",
                |c| &c.turned,
            ),
            self.by(
                "reason",
                CLOSES.map(|(label, _)| label),
                "connections_closed",
                "connections ended after their handshake, by why",
                |c| &c.closed,
            ),
            self.total("accept_errors", "times the machine could not accept, as without free descriptors", |c| {
                &c.accept_errors
            }),
            self.total(
                "network_received_bytes",
                "bytes that came over connections, heads and what TLS makes of it all among them",
                |c| &c.network_received,
            ),
            self.total("network_sent_bytes", "bytes that went over connections, the same", |c| &c.network_sent),
            self.handshakes(),
            self.by("version", TLS_VERSIONS, "handshakes_by_version", "TLS handshakes completed, by version", |c| {
                &c.handshakes
            }),
            self.total("handshakes_resumed", "TLS handshakes completed that took up an earlier session", |c| {
                &c.handshakes_resumed
            }),
            self.by(
                "reason",
                HANDSHAKE_FAILURES.map(|(label, _)| label),
                "handshakes_failed",
                "TLS handshakes that failed, by why",
                |c| &c.handshake_failures,
            ),
        ]
    }

    fn handshakes(&self) -> Counted {
        let number = (0..TLS_VERSIONS.len()).map(|at| self.sum(|counters| &counters.handshakes[at])).sum();
        let stat = Stat::Number(number);
        Counted { name: "handshakes", doc: "TLS handshakes completed", kind: Kind::Counter, stat }
    }

    fn of_requests(&self) -> Vec<Counted> {
        vec![
            self.by("version", VERSIONS.map(|(label, _)| label), "requests", "requests read, by HTTP version", |c| {
                &c.requests
            }),
            self.total("requests_aborted", "requests that their client broke off before they were whole", |c| {
                &c.requests_aborted
            }),
            now("requests_in_flight", "requests being answered now", &self.requests_in_flight),
            self.by("class", CLASSES, "responses", "responses begun, by class of status", |c| &c.responses),
            self.by(
                "outcome",
                OUTCOMES.map(Outcome::label),
                "requests_ended",
                "requests that are over, by how their response ended",
                |c| &c.ended,
            ),
            self.total("body_received_bytes", "bytes of bodies that came with requests, and all that came on WebSockets", |c| {
                &c.bytes_received
            }),
            self.total("body_sent_bytes", "bytes of bodies that were sent, as they went, and all that went on WebSockets", |c| {
                &c.bytes_sent
            }),
            self.by(
                "reason",
                Refusal::ALL.map(Refusal::label),
                "requests_refused",
                "requests answered by the server itself with an error, by why",
                |c| &c.refusals,
            ),
            self.by(
                "runs",
                Runs::ALL.map(Runs::label),
                "handler_calls",
                "calls of handlers, by where they run; what the core answers itself is none",
                |c| &c.calls,
            ),
            self.total(
                "handler_failures",
                "handlers that raised or returned what is no response, bodies that broke off, and callbacks of streams that raised",
                |c| &c.handler_failures,
            ),
            self.total(
                "loop_takeovers",
                "times a handler held an event loop too long, and a spare thread took the loop over",
                |c| &c.loop_takeovers,
            ),
            self.total("websockets", "WebSockets begun", |c| &c.websockets),
            self.total("websockets_open", "WebSockets open now", |c| &c.websockets_open).now(),
            self.total("websocket_messages_received", "messages that WebSockets' clients have sent", |c| {
                &c.websocket_messages_received
            }),
            self.total("websocket_messages_sent", "messages that were given to WebSockets to send", |c| {
                &c.websocket_messages_sent
            }),
            self.total(
                "access_log_dropped",
                "lines of the access log that could not be written in time, and were dropped",
                |c| &c.access_log_dropped,
            ),
        ]
    }

    fn of_pools(&self) -> Vec<Counted> {
        let pools = self.pools.look();
        let by = |name, doc, kind, number: fn(&PoolLook) -> u64| {
            let numbers = pools.iter().map(|(pool, look)| (*pool, number(look))).collect();
            Counted { name, doc, kind, stat: Stat::Labelled("pool", numbers) }
        };
        let waited = pools.iter().map(|(pool, look)| (*pool, look.waited.as_secs_f64())).collect();
        vec![
            by("pool_threads", "threads, by pool", Kind::Gauge, |look| look.threads as u64),
            by("pool_threads_idle", "threads that wait for a call, by pool", Kind::Gauge, |look| look.idle as u64),
            by("pool_queue", "calls that wait for a thread now, by pool", Kind::Gauge, |look| look.queued as u64),
            by("pool_calls", "calls that threads took up, by pool", Kind::Counter, |look| look.taken),
            Counted {
                name: "pool_wait_seconds",
                doc: "how long those calls had waited for a thread, together, by pool",
                kind: Kind::Counter,
                stat: Stat::Seconds("pool", waited),
            },
        ]
    }
}

fn now(name: &'static str, doc: &'static str, gauge: &Gauge) -> Counted {
    Counted { name, doc, kind: Kind::Gauge, stat: Stat::Number(gauge.get()) }
}

impl Counted {
    /// The same as something that comes and goes.
    fn now(self) -> Self {
        Counted { kind: Kind::Gauge, ..self }
    }
}

/// Every key of [`crate::Server::stats`] with what it counts.
pub fn statistics() -> Vec<(&'static str, &'static str)> {
    Metrics::default().list().into_iter().map(|counted| (counted.name, counted.doc)).collect()
}
