//! Requests that were answered, by host, route, method and class of status, with how long they took.
//!
//! Each thread counts in a shard of its own, whose lock nobody else wants but who reads, so that counting is a few writes to
//! memory that no other core has. What may be a label comes from the server's own people: hosts that have a context, patterns
//! of routes. Of methods there are nine, of statuses six. What goes beyond the most series is counted as `other`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use super::shards::Shards;
use crate::locks::{Mutex, RwLock};

/// The upper bounds of the buckets, in nanoseconds: from what a handler in the core takes to what people wait for.
const BOUNDS: [u64; 15] = [
    100_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "QUERY", "other"];
const OTHER_METHOD: u8 = METHODS.len() as u8 - 1;
const STATUSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];
/// Host and route of what has no series of its own.
const OTHER: &str = "other";

/// How often requests took how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Histogram {
    /// By bucket, the last one beyond all bounds; not added up.
    counts: [u64; BOUNDS.len() + 1],
    /// In nanoseconds.
    sum: u64,
}

impl Histogram {
    fn observe(&mut self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[BOUNDS.partition_point(|bound| *bound < nanoseconds)] += 1;
        self.sum = self.sum.saturating_add(nanoseconds);
    }

    /// Adds what another one has counted.
    pub(crate) fn add(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// The bounds of the buckets in seconds; behind them one that has none.
    pub(crate) fn bounds() -> impl Iterator<Item = f64> {
        BOUNDS.iter().map(|bound| *bound as f64 / 1e9)
    }

    /// How many there were in each bucket, not added up.
    pub(crate) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long they took together, in seconds.
    pub(crate) fn sum(&self) -> f64 {
        self.sum as f64 / 1e9
    }

    /// Each bound in seconds with how many took no longer; without the last, which is infinite.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let added_up = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        Self::bounds().zip(added_up)
    }
}

/// What one series is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Labels {
    host: Arc<str>,
    route: Arc<str>,
    method: u8,
    status: u8,
}

impl Labels {
    /// The name of the context; empty for the default and for clear text.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The pattern of the route; empty where there was none.
    pub(crate) fn route(&self) -> &str {
        &self.route
    }

    pub(crate) fn method(&self) -> &'static str {
        METHODS[usize::from(self.method)]
    }

    /// Whether it is of WebSockets, which begin by 101 or, in HTTP/2, by `CONNECT`: how long they stay says nothing of the
    /// server.
    pub(crate) fn is_of_websockets(&self) -> bool {
        self.status() == "1xx" || self.method() == "CONNECT" && self.status() == "2xx"
    }

    /// The class of the status, `none` where no response was begun.
    pub(crate) fn status(&self) -> &'static str {
        STATUSES[usize::from(self.status)]
    }
}

/// The same, borrowed, and nothing made yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key<'a> {
    host: &'a str,
    route: &'a str,
    method: u8,
    status: u8,
}

impl Key<'_> {
    fn is(self, labels: &Labels) -> bool {
        self.method == labels.method
            && self.status == labels.status
            && *self.route == *labels.route
            && *self.host == *labels.host
    }

    fn is_other(self) -> bool {
        self.host == OTHER && self.route == OTHER
    }
}

/// What one thread, or a few of them, have counted.
#[derive(Default)]
struct Shard {
    series: Vec<(Labels, Histogram)>,
    /// By hash; where two share one, the later stands at the next number that is free.
    places: HashMap<u64, usize>,
    /// The last one: the next request is often like it.
    last: usize,
}

/// All of it.
pub(crate) struct Served {
    shards: Shards<Mutex<Shard>>,
    hasher: RandomState,
    /// The series that there are, `other` not among them.
    admitted: RwLock<HashSet<Labels>>,
    most: usize,
}

impl Default for Served {
    fn default() -> Self {
        Served::new(0)
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Served {
    /// Nothing counted yet; so many series at the most, beside those of `other`.
    pub(crate) fn new(most: usize) -> Self {
        Served { shards: Default::default(), hasher: RandomState::new(), admitted: RwLock::default(), most }
    }

    /// Counts one request.
    pub(crate) fn observe(
        &self,
        host: Option<&str>,
        route: Option<&str>,
        method: Option<&Method>,
        status: Option<StatusCode>,
        took: Duration,
    ) {
        let key = Key {
            host: host.unwrap_or_default(),
            route: route.unwrap_or_default(),
            method: method.map_or(OTHER_METHOD, class_of_method),
            status: class_of_status(status),
        };
        let mut shard = self.shards.mine().lock();
        let last = shard.last;
        let at = match shard.series.get(last) {
            Some((labels, _)) if key.is(labels) => last,
            _ => {
                let at = self.find(&mut shard, key);
                shard.last = at;
                at
            }
        };
        if let Some((_, histogram)) = shard.series.get_mut(at) {
            histogram.observe(took);
        }
    }

    /// The place of a series in a shard, made where there is none.
    fn find(&self, shard: &mut Shard, key: Key<'_>) -> usize {
        let mut hash = self.hasher.hash_one(key);
        while let Some(&at) = shard.places.get(&hash) {
            if shard.series.get(at).is_some_and(|(labels, _)| key.is(labels)) {
                return at;
            }
            hash = hash.wrapping_add(1);
        }
        let Key { host, route, method, status } = key;
        let labels = Labels { host: host.into(), route: route.into(), method, status };
        if !key.is_other() && !self.admit(&labels) {
            return self.find(shard, Key { host: OTHER, route: OTHER, ..key });
        }
        let at = shard.series.len();
        shard.series.push((labels, Histogram::default()));
        shard.places.insert(hash, at);
        at
    }

    /// Whether there is, or may be, such a series.
    fn admit(&self, labels: &Labels) -> bool {
        {
            let admitted = self.admitted.read();
            if admitted.contains(labels) {
                return true;
            }
            if admitted.len() >= self.most {
                return false;
            }
        }
        let mut admitted = self.admitted.write();
        let there_is_room = admitted.len() < self.most;
        if there_is_room {
            admitted.insert(labels.clone());
        }
        there_is_room || admitted.contains(labels)
    }

    /// Every series, in order.
    pub(crate) fn tell(&self) -> Vec<(Labels, Histogram)> {
        let mut all = BTreeMap::<Labels, Histogram>::new();
        for shard in self.shards.all() {
            // Copied, so that whoever counts waits no longer than that takes.
            let series = shard.lock().series.clone();
            for (labels, histogram) in series {
                all.entry(labels).or_default().add(&histogram);
            }
        }
        all.into_iter().collect()
    }
}

fn class_of_method(method: &Method) -> u8 {
    let at = METHODS.iter().position(|known| *known == method.as_str());
    at.map_or(OTHER_METHOD, |at| at as u8)
}

fn class_of_status(status: Option<StatusCode>) -> u8 {
    let none = STATUSES.len() as u16 - 1;
    status.map_or(none, |status| (status.as_u16() / 100).wrapping_sub(1).min(none)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn told(served: &Served) -> Vec<(String, String, &'static str, &'static str, u64)> {
        let row = |(labels, histogram): (Labels, Histogram)| {
            let (host, route) = (labels.host().to_string(), labels.route().to_string());
            (host, route, labels.method(), labels.status(), histogram.count())
        };
        served.tell().into_iter().map(row).collect()
    }

    #[test]
    fn buckets_add_up() {
        let mut histogram = Histogram::default();
        for took in [Duration::ZERO, Duration::from_micros(100), MS, MS * 3, Duration::from_secs(11), Duration::MAX] {
            histogram.observe(took);
        }
        let buckets: Vec<_> = histogram.buckets().collect();
        // A bound belongs to what is below it.
        assert_eq!(buckets[0], (0.0001, 2));
        assert_eq!(buckets[2], (0.001, 3));
        assert_eq!(buckets[4], (0.005, 4));
        assert_eq!(buckets[BOUNDS.len() - 1], (10.0, 4));
        assert_eq!(histogram.count(), 6);
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn what_threads_have_counted_is_one() {
        let served = Served::new(10);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for number in 0..1_000 {
                        let route = if number % 2 == 0 { "/a" } else { "/b" };
                        served.observe(Some("h"), Some(route), Some(&Method::GET), Some(StatusCode::OK), MS);
                    }
                });
            }
        });
        let expected = |route: &str| ("h".to_string(), route.to_string(), "GET", "2xx", 8_000);
        assert_eq!(told(&served), [expected("/a"), expected("/b")]);
    }

    #[test]
    fn methods_and_statuses_are_a_few() {
        let served = Served::new(1_000);
        for number in 0..1_000u16 {
            let method = Method::from_bytes(format!("BREW{number}").as_bytes()).unwrap();
            served.observe(None, None, Some(&method), StatusCode::from_u16(number).ok(), MS);
        }
        let told = told(&served);
        let classes: Vec<_> = told.iter().map(|(.., method, status, _)| (*method, *status)).collect();
        assert_eq!(classes, STATUSES.map(|status| ("other", status)));
        assert_eq!(told.iter().map(|(.., count)| count).sum::<u64>(), 1_000);
    }

    #[test]
    fn ten_thousand_hosts_and_routes_are_no_more_series_than_allowed() {
        let served = Served::new(100);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..10_000 {
                        let (host, route) = (format!("{number}.test"), format!("/{number}"));
                        served.observe(Some(&host), Some(&route), Some(&Method::GET), Some(StatusCode::OK), MS);
                    }
                });
            }
        });
        let told = told(&served);
        assert_eq!(told.len(), 101);
        let (named, other): (Vec<_>, Vec<_>) = told.iter().partition(|(host, ..)| host != OTHER);
        // The same in whatever thread.
        assert!(named.iter().all(|(.., count)| *count == 4));
        assert_eq!(other[0].4, 4 * (10_000 - 100));
        for shard in served.shards.all() {
            let shard = shard.lock();
            assert!(shard.series.len() <= 101 && shard.places.len() == shard.series.len());
        }
    }

    #[test]
    fn without_series_everything_is_other() {
        let served = Served::new(0);
        served.observe(Some("h"), Some("/"), Some(&Method::PUT), None, MS);
        assert_eq!(told(&served), [("other".to_string(), "other".to_string(), "PUT", "none", 1)]);
    }

    /// What it costs; `cargo nextest run --run-ignored all --release -p portico-core --no-capture cost_of`.
    #[test]
    #[ignore = "a measurement"]
    #[allow(clippy::print_stderr, reason = "what it has measured")]
    fn cost_of_counting() {
        let served = Served::new(500);
        for routes in [1, 10, 100] {
            let names: Vec<_> = (0..routes).map(|number| format!("/users/{{id}}/things/{number}")).collect();
            let began = std::time::Instant::now();
            let rounds = 3_000_000;
            for number in 0..rounds {
                let route = Some(names[number % routes].as_str());
                served.observe(Some("www.example.com"), route, Some(&Method::GET), Some(StatusCode::OK), MS);
            }
            let each = began.elapsed().as_nanos() as f64 / rounds as f64;
            eprintln!("{routes} routes: {each:.1} ns for a request");
        }
    }
}
