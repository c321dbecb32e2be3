//! Settings, parsed once into a [`Config`] that cannot be wrong.
//!
//! [`SETTINGS`] is the one list: names, ranges, defaults and words. The Python docstrings, `docs/settings.md`
//! and the error messages are made from it or checked against it.

use std::borrow::Cow;
use std::time::Duration;

use crate::error::Error;

/// A value as the caller gave it, before it is checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`: no limit, where a setting allows that.
    Nothing,
    /// A boolean.
    Switch(bool),
    /// An integer.
    Integer(i64),
    /// A real number.
    Real(f64),
    /// A text.
    Text(Cow<'static, str>),
    /// Two integers: the least and the most.
    Pair(i64, i64),
    /// Anything else; the text describes it for the error message.
    Other(String),
}

/// What a setting accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A whole number of bytes or things.
    Count {
        /// The least accepted.
        min: i64,
        /// The most accepted.
        max: i64,
        /// Whether `None` (no limit) is accepted.
        optional: bool,
        /// `bytes`, `connections`, ...
        unit: &'static str,
    },
    /// A duration in seconds.
    Seconds {
        /// The least accepted.
        min: f64,
        /// The most accepted.
        max: f64,
        /// Whether `None` (no limit) is accepted.
        optional: bool,
    },
    /// On or off.
    Switch,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A least and a most number of threads.
    Range {
        /// The least accepted.
        min: i64,
        /// The most accepted.
        max: i64,
    },
}

/// One setting of a server.
pub struct Setting {
    /// The keyword.
    pub name: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// What holds when it is not given.
    pub default: Value,
    /// What it does, in a sentence or two.
    pub doc: &'static str,
    set: fn(&mut Config, Checked),
}

/// How `def` handlers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatch {
    /// The server's own choice.
    Auto,
    /// On the thread that read the request.
    Inline,
    /// On a pool of threads.
    Threads,
    /// On an event loop.
    Asyncio,
}

/// Every setting of a server, checked.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each field is described in SETTINGS, under the same name")]
pub struct Config {
    pub max_request_read_bytes: usize,
    pub max_read_buffer_size: usize,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub max_connections: usize,
    pub max_connections_per_ip: Option<usize>,
    pub max_in_flight: usize,
    pub handshake_timeout: Duration,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub keepalive_timeout: Duration,
    pub write_timeout: Duration,
    pub handler_timeout: Option<Duration>,
    pub http1: bool,
    pub http2: bool,
    pub nodelay: bool,
    pub backlog: i32,
    pub dispatch: Dispatch,
    pub threads: (usize, usize),
    pub io_threads: usize,
    pub stream_timeout: Option<Duration>,
    pub stream_threads: usize,
}

const fn count(min: i64, max: i64, unit: &'static str) -> Kind {
    Kind::Count { min, max, optional: false, unit }
}

const fn seconds(optional: bool) -> Kind {
    Kind::Seconds { min: 0.01, max: 86_400.0, optional }
}

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;

/// Every setting, in the order of the documentation.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "max_request_read_bytes",
        kind: count(0, 16 * GIB, "bytes"),
        default: Value::Integer(10 * MIB),
        doc: "The largest request body. A larger one is answered with 413 and its connection closed.",
        set: |c, v| c.max_request_read_bytes = v.count(),
    },
    Setting {
        name: "max_read_buffer_size",
        kind: count(4 * KIB, GIB, "bytes"),
        default: Value::Integer(MIB),
        doc: "The most that is read ahead of the handler on one connection: pipelined requests wait in the kernel beyond it. In HTTP/2 it is the connection's flow-control window.",
        set: |c, v| c.max_read_buffer_size = v.count(),
    },
    Setting {
        name: "max_header_bytes",
        kind: count(KIB, 16 * MIB, "bytes"),
        default: Value::Integer(64 * KIB),
        doc: "The largest request head, and the most trailers. A larger one is answered with 431, or 414 when the target alone is too long. Decoded size counts in HTTP/2.",
        set: |c, v| c.max_header_bytes = v.count(),
    },
    Setting {
        name: "max_headers",
        kind: count(1, 10_000, "headers"),
        default: Value::Integer(100),
        doc: "The most header lines of a request. More are answered with 431.",
        set: |c, v| c.max_headers = v.count(),
    },
    Setting {
        name: "max_connections",
        kind: count(1, 10_000_000, "connections"),
        default: Value::Integer(10_000),
        doc: "The most connections open at once, over all listeners. One more is closed as soon as it is accepted.",
        set: |c, v| c.max_connections = v.count(),
    },
    Setting {
        name: "max_connections_per_ip",
        kind: Kind::Count { min: 1, max: 10_000_000, optional: true, unit: "connections" },
        default: Value::Nothing,
        doc: "The most connections open at once from one IP address (a /64 network for IPv6). One more is closed as soon as it is accepted.",
        set: |c, v| c.max_connections_per_ip = v.optional_count(),
    },
    Setting {
        name: "max_in_flight",
        kind: count(1, 10_000_000, "requests"),
        default: Value::Integer(1_000),
        doc: "The most requests being answered at once. One more is answered at once with 503 and Retry-After.",
        set: |c, v| c.max_in_flight = v.count(),
    },
    Setting {
        name: "handshake_timeout",
        kind: seconds(false),
        default: Value::Real(10.0),
        doc: "How long a TLS handshake may take. Then the connection is closed.",
        set: |c, v| c.handshake_timeout = v.seconds(),
    },
    Setting {
        name: "header_timeout",
        kind: seconds(false),
        default: Value::Real(10.0),
        doc: "How long a request head may take from its first byte, and a new connection until its first request. Then 408 if a request was begun, and close.",
        set: |c, v| c.header_timeout = v.seconds(),
    },
    Setting {
        name: "body_timeout",
        kind: seconds(false),
        default: Value::Real(30.0),
        doc: "How long a request body may make no progress, for which a few bytes are too little: 4 KiB are progress. Then 408 and close.",
        set: |c, v| c.body_timeout = v.seconds(),
    },
    Setting {
        name: "keepalive_timeout",
        kind: seconds(false),
        default: Value::Real(60.0),
        doc: "How long a connection may be idle between requests. Then it is closed.",
        set: |c, v| c.keepalive_timeout = v.seconds(),
    },
    Setting {
        name: "write_timeout",
        kind: seconds(false),
        default: Value::Real(30.0),
        doc: "How long a client may take none of a response, or a few bytes only: 4 KiB are progress. Then the connection is dropped.",
        set: |c, v| c.write_timeout = v.seconds(),
    },
    Setting {
        name: "handler_timeout",
        kind: seconds(true),
        default: Value::Nothing,
        doc: "How long a handler may take. Then the client gets 503 and the handler's result is dropped when it comes.",
        set: |c, v| c.handler_timeout = v.optional_seconds(),
    },
    Setting {
        name: "http1",
        kind: Kind::Switch,
        default: Value::Switch(true),
        doc: "Whether HTTP/1.0 and HTTP/1.1 are spoken.",
        set: |c, v| c.http1 = v.switch(),
    },
    Setting {
        name: "http2",
        kind: Kind::Switch,
        default: Value::Switch(true),
        doc: "Whether HTTP/2 is spoken: by ALPN over TLS, by prior knowledge on cleartext listeners.",
        set: |c, v| c.http2 = v.switch(),
    },
    Setting {
        name: "nodelay",
        kind: Kind::Switch,
        default: Value::Switch(true),
        doc: "Whether TCP_NODELAY is set on accepted connections.",
        set: |c, v| c.nodelay = v.switch(),
    },
    Setting {
        name: "backlog",
        kind: count(1, 65_535, "connections"),
        default: Value::Integer(1_024),
        doc: "How many connections the kernel queues for a listener before they are accepted. `listen(backlog=)` overrides it for one listener.",
        set: |c, v| c.backlog = v.count() as i32,
    },
    Setting {
        name: "dispatch",
        kind: Kind::Choice(&["auto", "inline", "threads", "asyncio"]),
        default: Value::Text(Cow::Borrowed("auto")),
        doc: "How `def` handlers run: `inline` on the thread that read the request (they must not block), `threads` on a pool, `asyncio` on the event loop; `auto` on the pool until it has proved short, then inline, but for paths whose calls were long. `async def` handlers always run on an event loop.",
        set: |c, v| c.dispatch = v.dispatch(),
    },
    Setting {
        name: "threads",
        kind: Kind::Range { min: 1, max: 1_000 },
        default: Value::Pair(5, 20),
        doc: "The least and the most threads of the pool. The least are started with the first listener, where a handler needs them; it grows while every thread is busy.",
        set: |c, v| c.threads = v.pair(),
    },
    Setting {
        name: "io_threads",
        kind: Kind::Count { min: 1, max: 256, optional: true, unit: "threads" },
        default: Value::Nothing,
        doc: "How many threads do TLS, HTTP and `inline` handlers. The default is the number of cores, 4 at the most.",
        set: |c, v| c.io_threads = v.optional_count().unwrap_or_else(default_io_threads),
    },
    Setting {
        name: "stream_timeout",
        kind: seconds(true),
        default: Value::Real(60.0),
        doc: "How long a read of a `portico.Connection` may take that is given no time of its own, and how long a connection waits for one of the `stream_threads`. Then `TimeoutError`, or close.",
        set: |c, v| c.stream_timeout = v.optional_seconds(),
    },
    Setting {
        name: "stream_threads",
        kind: count(1, 10_000, "threads"),
        default: Value::Integer(200),
        doc: "The most threads for `def` callbacks of `listen(stream=)`, each of which has one for as long as its connection lasts. More connections wait for their turn. Threads are started as they are needed, and end when they are not.",
        set: |c, v| c.stream_threads = v.count(),
    },
];

fn default_io_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}

impl Default for Config {
    fn default() -> Self {
        let zero = Duration::ZERO;
        // Every field is overwritten below: SETTINGS is the only place where a default stands.
        let mut config = Config {
            max_request_read_bytes: 0,
            max_read_buffer_size: 0,
            max_header_bytes: 0,
            max_headers: 0,
            max_connections: 0,
            max_connections_per_ip: None,
            max_in_flight: 0,
            handshake_timeout: zero,
            header_timeout: zero,
            body_timeout: zero,
            keepalive_timeout: zero,
            write_timeout: zero,
            handler_timeout: None,
            http1: false,
            http2: false,
            nodelay: false,
            backlog: 0,
            dispatch: Dispatch::Auto,
            threads: (0, 0),
            io_threads: 0,
            stream_timeout: None,
            stream_threads: 0,
        };
        for setting in SETTINGS {
            if let Ok(checked) = setting.kind.check(&setting.default) {
                (setting.set)(&mut config, checked);
            }
        }
        config
    }
}

impl Config {
    /// Reads settings by name over the defaults.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name (with the nearest known one) or a value outside its range.
    pub fn parse(values: impl IntoIterator<Item = (String, Value)>) -> Result<Self, Error> {
        let mut config = Config::default();
        for (name, value) in values {
            let setting = SETTINGS.iter().find(|setting| setting.name == name).ok_or_else(|| unknown(&name))?;
            let checked = setting.kind.check(&value).map_err(|got| {
                Error::Config(format!("setting {name}: expected {}, not {got}", setting.kind.expected()))
            })?;
            (setting.set)(&mut config, checked);
        }
        if !config.http1 && !config.http2 {
            return Err(Error::Config(
                "settings http1 and http2: at least one must be on, or no request can be read".into(),
            ));
        }
        Ok(config)
    }
}

fn unknown(name: &str) -> Error {
    let nearest = SETTINGS
        .iter()
        .map(|setting| (strsim::jaro_winkler(name, setting.name), setting.name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((similarity, known)) if similarity > 0.8 => {
            Error::Config(format!("unknown setting {name}: did you mean {known}?"))
        }
        _ => {
            let known: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            Error::Config(format!("unknown setting {name}: the settings are {}", known.join(", ")))
        }
    }
}

/// A value that fits its [`Kind`].
enum Checked {
    Nothing,
    Switch(bool),
    Count(usize),
    Seconds(Duration),
    Choice(String),
    Pair(usize, usize),
}

// A Checked comes out of the Kind beside it in SETTINGS, so the other variants do not occur.
impl Checked {
    fn count(self) -> usize {
        self.optional_count().unwrap_or_default()
    }

    fn optional_count(self) -> Option<usize> {
        if let Checked::Count(n) = self { Some(n) } else { None }
    }

    fn seconds(self) -> Duration {
        self.optional_seconds().unwrap_or_default()
    }

    fn optional_seconds(self) -> Option<Duration> {
        if let Checked::Seconds(duration) = self { Some(duration) } else { None }
    }

    fn switch(self) -> bool {
        matches!(self, Checked::Switch(true))
    }

    fn pair(self) -> (usize, usize) {
        if let Checked::Pair(least, most) = self { (least, most) } else { (1, 1) }
    }

    fn dispatch(self) -> Dispatch {
        let Checked::Choice(word) = self else { return Dispatch::Auto };
        match word.as_str() {
            "inline" => Dispatch::Inline,
            "threads" => Dispatch::Threads,
            "asyncio" => Dispatch::Asyncio,
            _ => Dispatch::Auto,
        }
    }
}

impl Kind {
    fn check(self, value: &Value) -> Result<Checked, String> {
        match (self, value) {
            (Kind::Count { optional: true, .. } | Kind::Seconds { optional: true, .. }, Value::Nothing) => {
                Ok(Checked::Nothing)
            }
            (Kind::Count { min, max, .. }, Value::Integer(n)) if (min..=max).contains(n) => {
                Ok(Checked::Count(*n as usize))
            }
            (Kind::Seconds { min, max, .. }, Value::Integer(n)) if (min..=max).contains(&(*n as f64)) => {
                Ok(Checked::Seconds(Duration::from_secs_f64(*n as f64)))
            }
            (Kind::Seconds { min, max, .. }, Value::Real(n)) if (min..=max).contains(n) => {
                Ok(Checked::Seconds(Duration::from_secs_f64(*n)))
            }
            (Kind::Switch, Value::Switch(on)) => Ok(Checked::Switch(*on)),
            (Kind::Choice(words), Value::Text(word)) if words.contains(&word.as_ref()) => {
                Ok(Checked::Choice(word.to_string()))
            }
            (Kind::Range { min, max }, Value::Pair(least, most)) if min <= *least && least <= most && *most <= max => {
                Ok(Checked::Pair(*least as usize, *most as usize))
            }
            _ => Err(value.describe()),
        }
    }

    /// What it accepts, in words: the range column of the documentation and the error messages.
    pub fn expected(self) -> String {
        match self {
            Kind::Count { min, max, optional, unit } => {
                format!("a whole number of {unit} from {min} to {max}{}", or_none(optional))
            }
            Kind::Seconds { min, max, optional } => {
                format!("a number of seconds from {min} to {max}{}", or_none(optional))
            }
            Kind::Switch => "True or False".into(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Range { min, max } => format!("a pair (least, most) of whole numbers from {min} to {max}"),
        }
    }
}

fn or_none(optional: bool) -> &'static str {
    if optional { ", or None" } else { "" }
}

impl Value {
    /// The value as Python writes it.
    pub fn describe(&self) -> String {
        match self {
            Value::Nothing => "None".into(),
            Value::Switch(true) => "True".into(),
            Value::Switch(false) => "False".into(),
            Value::Integer(n) => n.to_string(),
            Value::Real(n) => format!("{n:?}"),
            Value::Text(text) => format!("{text:?}"),
            Value::Pair(least, most) => format!("({least}, {most})"),
            Value::Other(text) => text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, value: Value) -> String {
        Config::parse([(name.to_string(), value)]).unwrap_err().to_string()
    }

    #[test]
    fn every_default_fits_its_kind() {
        for setting in SETTINGS {
            assert!(setting.kind.check(&setting.default).is_ok(), "{}", setting.name);
        }
        let config = Config::default();
        assert_eq!(config.max_header_bytes, 65_536);
        assert_eq!(config.keepalive_timeout, Duration::from_secs(60));
        assert_eq!(config.threads, (5, 20));
    }

    #[test]
    fn a_wrong_name_is_told_the_nearest() {
        assert_eq!(
            refused("max_header_byte", Value::Integer(1)),
            "unknown setting max_header_byte: did you mean max_header_bytes?"
        );
        assert!(refused("zebra", Value::Nothing).contains("the settings are max_request_read_bytes"));
    }

    #[test]
    fn a_wrong_value_is_told_the_range() {
        assert_eq!(
            refused("max_headers", Value::Integer(0)),
            "setting max_headers: expected a whole number of headers from 1 to 10000, not 0"
        );
        assert!(refused("header_timeout", Value::Real(f64::NAN)).ends_with("not NaN"));
        assert!(refused("threads", Value::Pair(9, 2)).ends_with("not (9, 2)"));
        assert!(refused("dispatch", Value::Text("fibers".into())).contains("one of auto, inline"));
        assert!(refused("http1", Value::Integer(1)).contains("True or False"));
    }

    #[test]
    fn one_protocol_must_be_left() {
        let off = ["http1", "http2"].map(|name| (name.to_string(), Value::Switch(false)));
        assert!(Config::parse(off).is_err());
    }
}
