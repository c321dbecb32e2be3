//! What a setting may be: a value as it was given, the kinds of settings, and a value that fits its kind.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{self, HeaderName};

use super::{Config, Dispatch};
use crate::access_log::{LogFormat, LogTarget};
use crate::http::Response;
use crate::http::coding::{Coding, RequestCoding};
use crate::proxy::{Proxies, Style};

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
    /// Some texts, in an order.
    Words(Cow<'static, [Cow<'static, str>]>),
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
    /// A folder that is there, or `None`.
    Folder,
    /// Where a log goes, or `None`.
    Log,
    /// The name of a header, or `None`.
    Header,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// Any of some words, each once, the preferred first.
    Words(&'static [&'static str]),
    /// IP addresses, networks, and `unix`.
    Proxies,
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
    pub(super) set: fn(&mut Config, Checked),
}

/// A value that fits its [`Kind`].
pub(super) enum Checked {
    Nothing,
    Switch(bool),
    Count(usize),
    Seconds(Duration),
    Choice(String),
    Folder(PathBuf),
    Words(Vec<String>),
    Proxies(Proxies),
    Pair(usize, usize),
}

// A Checked comes out of the Kind beside it in SETTINGS, so the other variants do not occur.
impl Checked {
    pub(super) fn count(self) -> usize {
        self.optional_count().unwrap_or_default()
    }

    pub(super) fn optional_count(self) -> Option<usize> {
        if let Checked::Count(n) = self { Some(n) } else { None }
    }

    pub(super) fn seconds(self) -> Duration {
        self.optional_seconds().unwrap_or_default()
    }

    pub(super) fn optional_seconds(self) -> Option<Duration> {
        if let Checked::Seconds(duration) = self { Some(duration) } else { None }
    }

    pub(super) fn switch(self) -> bool {
        matches!(self, Checked::Switch(true))
    }

    pub(super) fn pair(self) -> (usize, usize) {
        if let Checked::Pair(least, most) = self { (least, most) } else { (1, 1) }
    }

    pub(super) fn folder(self) -> Option<PathBuf> {
        if let Checked::Folder(path) = self { Some(path) } else { None }
    }

    pub(super) fn codings(self) -> Vec<Coding> {
        self.words().iter().filter_map(|word| Coding::named(word.as_bytes())).collect()
    }

    pub(super) fn request_codings(self) -> Vec<RequestCoding> {
        self.words().iter().filter_map(|word| RequestCoding::named(word.as_bytes())).collect()
    }

    fn words(self) -> Vec<String> {
        if let Checked::Words(words) = self { words } else { Vec::new() }
    }

    pub(super) fn header(self) -> Option<HeaderName> {
        let Checked::Choice(name) = self else { return None };
        HeaderName::from_bytes(name.as_bytes()).ok()
    }

    pub(super) fn log(self) -> Option<LogTarget> {
        let Checked::Choice(place) = self else { return None };
        Some(match place.as_str() {
            "-" => LogTarget::Stdout,
            "stderr" => LogTarget::Stderr,
            "logging" => LogTarget::Program,
            path => LogTarget::File(path.into()),
        })
    }

    pub(super) fn log_format(self) -> LogFormat {
        let Checked::Choice(word) = self else { return LogFormat::Combined };
        match word.as_str() {
            "common" => LogFormat::Common,
            "json" => LogFormat::Json,
            _ => LogFormat::Combined,
        }
    }

    pub(super) fn proxies(self) -> Proxies {
        if let Checked::Proxies(proxies) = self { proxies } else { Proxies::default() }
    }

    pub(super) fn style(self) -> Option<Style> {
        let Checked::Choice(word) = self else { return None };
        Style::named(&word)
    }

    pub(super) fn dispatch(self) -> Dispatch {
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
    pub(super) fn check(self, value: &Value) -> Result<Checked, String> {
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
            (Kind::Words(_) | Kind::Folder | Kind::Proxies | Kind::Log | Kind::Header, Value::Nothing) => {
                Ok(Checked::Nothing)
            }
            (Kind::Header, Value::Text(name)) if is_free(name) => Ok(Checked::Choice(name.to_string())),
            (Kind::Log, Value::Text(place)) if !place.is_empty() && !place.contains('\0') => {
                Ok(Checked::Choice(place.to_string()))
            }
            (Kind::Proxies, Value::Words(words)) => {
                Proxies::parse(words.iter().map(AsRef::as_ref)).map(Checked::Proxies)
            }
            (Kind::Folder, Value::Text(path)) if Path::new(path.as_ref()).is_dir() => {
                Ok(Checked::Folder(PathBuf::from(path.as_ref())))
            }
            (Kind::Words(known), Value::Words(words))
                if words
                    .iter()
                    .enumerate()
                    .all(|(at, word)| known.contains(&word.as_ref()) && !words[..at].contains(word)) =>
            {
                Ok(Checked::Words(words.iter().map(ToString::to_string).collect()))
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
            Kind::Folder => "the path of a folder that is there, or None".into(),
            Kind::Header => "the name of a header that means nothing else, as X-Request-Id, or None".into(),
            Kind::Log => "the path of a file, \"-\", \"stderr\", \"logging\", or None".into(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Words(words) => {
                format!("a tuple of any of {}, each once, the preferred first; or None", words.join(", "))
            }
            Kind::Proxies => "a tuple of IP addresses, networks as \"10.0.0.0/8\", and \"unix\"; or None".into(),
            Kind::Range { min, max } => format!("a pair (least, most) of whole numbers from {min} to {max}"),
        }
    }
}

/// Whether it is a name of a header, and of none that means something to a server.
fn is_free(name: &str) -> bool {
    let taken = [
        header::ACCEPT_ENCODING,
        header::AUTHORIZATION,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::DATE,
        header::ETAG,
        header::FORWARDED,
        header::HOST,
        header::LOCATION,
        header::SERVER,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::VARY,
        header::WWW_AUTHENTICATE,
    ];
    HeaderName::from_bytes(name.as_bytes())
        .is_ok_and(|name| !Response::is_framing(&name) && name != header::TRANSFER_ENCODING && !taken.contains(&name))
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
            Value::Words(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
                format!("({}{})", words.join(", "), if words.len() == 1 { "," } else { "" })
            }
            Value::Other(text) => text.clone(),
        }
    }
}
