//! What the dashboard shows, as JSON: everything that only grows as it stands, so that nothing is kept here of one look for the
//! next, and whoever looks makes rates and percentiles of what lies between two. `docs/dashboard.md` lists the fields.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::locks::Mutex;
use crate::metrics::{Histogram, Stat, process};
use crate::recent::Line;
use crate::server::Service;
use crate::shutdown::{Drain, Phase};

/// The most rows of each table.
const ROUTES: usize = 200;
const HOSTS: usize = 100;
const HANDLERS: usize = 50;
/// A snapshot younger than this is good for others too.
const FRESH: Duration = Duration::from_millis(500);

/// Makes snapshots of one server, for everybody who looks at it the same.
pub(super) struct Snapshots {
    service: Arc<Service>,
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl Snapshots {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Snapshots { service, last: Mutex::default() }
    }

    /// A snapshot of now, without the log.
    pub(super) fn take(&self) -> Bytes {
        let mut last = self.last.lock();
        if let Some((taken, snapshot)) = &*last
            && taken.elapsed() < FRESH
        {
            return snapshot.clone();
        }
        let snapshot = Bytes::from(Value::Object(snapshot(&self.service)).to_string());
        *last = Some((Instant::now(), snapshot.clone()));
        snapshot
    }

    /// The same with the log, and made for this call.
    pub(super) fn whole(&self) -> Bytes {
        let mut whole = snapshot(&self.service);
        whole.insert("log".into(), lines(&self.service.recent.since(0)));
        Bytes::from(Value::Object(whole).to_string())
    }

    /// What was logged behind that line, and the number of the last one; none where nothing was.
    pub(super) fn log_since(&self, number: u64) -> Option<(String, u64)> {
        let new = self.service.recent.since(number);
        let last = new.last()?.number;
        Some((lines(&new).to_string(), last))
    }
}

fn snapshot(service: &Service) -> Map<String, Value> {
    let (since, made) = service.made;
    let (hosts, hosts_total) = hosts(service);
    let (handlers, handlers_total) = service.roster.tell(HANDLERS);
    let handlers: Vec<_> = handlers
        .into_iter()
        .map(|(name, told)| {
            json!({
                "name": name, "runs": told.runs, "why": told.why, "slow_paths": told.slow_paths,
                "promoted": told.moves.0, "demoted": told.moves.1,
            })
        })
        .collect();
    let (state, drain_seconds_left) = state(service);
    let (latency, routes, routes_total) = served(service);
    let (cpu_seconds, resident_bytes) = process::cpu_and_memory();
    let members = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "time": unix(SystemTime::now()),
        "started": unix(made),
        "uptime": since.elapsed().as_secs_f64(),
        "state": state,
        "drain_seconds_left": drain_seconds_left,
        "process": { "id": std::process::id(), "cpu_seconds": cpu_seconds, "resident_bytes": resident_bytes },
        "listeners": *service.places.lock(),
        "limits": {
            "max_connections": service.config.max_connections, "max_in_flight": service.config.max_in_flight,
        },
        "counters": counters(service),
        "latency": latency,
        "routes": routes,
        "routes_total": routes_total,
        "hosts": hosts,
        "hosts_total": hosts_total,
        "handlers": handlers,
        "handlers_total": handlers_total,
        "loops": loops(service),
    });
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// Where it is in its life, and how long a drain may still take.
fn state(service: &Service) -> (&'static str, Option<f64>) {
    match *service.lifecycle.subscribe().borrow() {
        Phase::Serving if service.has_listened.load(std::sync::atomic::Ordering::Acquire) => ("serving", None),
        Phase::Serving => ("starting", None),
        Phase::Draining(Drain { until, .. }) => {
            ("draining", Some(until.saturating_duration_since(tokio::time::Instant::now()).as_secs_f64()))
        }
        Phase::Stopped => ("stopped", None),
    }
}

/// Everything that `stats()` counts, by the same names.
fn counters(service: &Service) -> Value {
    let value = |stat| match stat {
        Stat::Number(number) => Value::from(number),
        Stat::Labelled(_, numbers) => numbers.into_iter().map(|(label, number)| (label, Value::from(number))).collect(),
        Stat::Seconds(_, numbers) => numbers.into_iter().map(|(label, number)| (label, Value::from(number))).collect(),
    };
    Value::Object(service.metrics.list().into_iter().map(|one| (one.name.into(), value(one.stat))).collect())
}

/// How long requests took: all of them; by host and route, those that took the longest together; and how many such there are.
/// WebSockets are in neither.
fn served(service: &Service) -> (Value, Vec<Value>, usize) {
    #[derive(Default)]
    struct Row {
        took: Histogram,
        failed: u64,
    }
    let (mut all, mut rows) = (Histogram::default(), BTreeMap::<_, Row>::new());
    let told = service.metrics.served.tell();
    for (labels, took) in told.iter().filter(|(labels, _)| !labels.is_of_websockets()) {
        all.add(took);
        let row = rows.entry((labels.host(), labels.route())).or_default();
        row.took.add(took);
        if labels.status() == "5xx" {
            row.failed += took.count();
        }
    }
    let total = rows.len();
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|(_, a), (_, b)| b.took.sum().total_cmp(&a.took.sum()));
    let name = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    let row = |((host, route), row): ((&str, &str), Row)| {
        json!({
            "host": name(host), "route": name(route), "requests": row.took.count(), "failed": row.failed,
            "seconds": row.took.sum(), "counts": row.took.counts(),
        })
    };
    let rows = rows.into_iter().take(ROUTES).map(row).collect();
    let bounds: Vec<f64> = Histogram::bounds().collect();
    (json!({ "bounds": bounds, "counts": all.counts(), "seconds": all.sum() }), rows, total)
}

/// The certificates, those that end first, and how many there are.
fn hosts(service: &Service) -> (Vec<Value>, usize) {
    let mut contexts = service.hosts.read().contexts();
    let total = contexts.len();
    contexts.sort_by_key(|context| context.not_after());
    let tell = |context: &Arc<crate::tls::Context>| {
        let (subject, not_after) = context.describe();
        json!({ "name": context.host(), "subject": subject, "not_after": not_after })
    };
    (contexts.iter().take(HOSTS).map(tell).collect(), total)
}

/// The event loops: how long each took to come to what it was given last, or has not come to it for.
fn loops(service: &Service) -> Vec<Value> {
    let turning = service.pulse.tell().into_iter();
    let tell = |one: crate::event_loops::Turning| {
        let waiting = one.waiting.map(|waiting| waiting.as_secs_f64());
        json!({ "name": one.name, "lag_seconds": one.lag.as_secs_f64(), "waiting_seconds": waiting })
    };
    turning.map(tell).collect()
}

fn lines(lines: &[Line]) -> Value {
    let tell = |line: &Line| {
        let Line { number, time, level, message } = line;
        json!({ "number": number, "time": unix(*time), "level": level.name(), "message": message })
    };
    lines.iter().map(tell).collect()
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
