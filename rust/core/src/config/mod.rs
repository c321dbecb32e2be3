//! Settings, parsed once into a [`Config`] that cannot be wrong. [`SETTINGS`] is the one list of them.

mod kind;
mod settings;
pub mod toml;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
pub use kind::{Kind, Setting, Value};
pub use settings::SETTINGS;

use crate::access_log::{LogFormat, LogTarget};
use crate::error::Error;
use crate::http::coding::{Coding, RequestCoding};
use crate::proxy::{Proxies, Style};

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
    pub max_form_parts: usize,
    pub max_form_field_bytes: usize,
    pub max_form_file_bytes: Option<usize>,
    pub form_memory_bytes: usize,
    pub form_folder: Option<PathBuf>,
    pub handshake_timeout: Duration,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub keepalive_timeout: Duration,
    pub drain_idle_timeout: Duration,
    pub write_timeout: Duration,
    pub handler_timeout: Option<Duration>,
    pub http1: bool,
    pub http2: bool,
    pub compression: Vec<Coding>,
    pub compression_min_bytes: usize,
    pub decompression: Vec<RequestCoding>,
    pub websocket: bool,
    pub nodelay: bool,
    pub backlog: i32,
    pub access_log: Option<LogTarget>,
    pub access_log_format: LogFormat,
    pub request_id_header: Option<HeaderName>,
    pub trusted_proxies: Arc<Proxies>,
    pub forwarded: Option<Style>,
    pub dispatch: Dispatch,
    pub threads: (usize, usize),
    pub io_threads: usize,
    pub stream_timeout: Option<Duration>,
    pub stream_threads: usize,
    pub probes: bool,
    pub max_metric_series: usize,
    pub liveness_timeout: Duration,
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
            max_form_parts: 0,
            max_form_field_bytes: 0,
            max_form_file_bytes: None,
            form_memory_bytes: 0,
            form_folder: None,
            handshake_timeout: zero,
            header_timeout: zero,
            body_timeout: zero,
            keepalive_timeout: zero,
            drain_idle_timeout: zero,
            write_timeout: zero,
            handler_timeout: None,
            http1: false,
            http2: false,
            compression: Vec::new(),
            compression_min_bytes: 0,
            decompression: Vec::new(),
            websocket: false,
            nodelay: false,
            backlog: 0,
            access_log: None,
            access_log_format: LogFormat::Combined,
            request_id_header: None,
            trusted_proxies: Arc::default(),
            forwarded: None,
            dispatch: Dispatch::Auto,
            threads: (0, 0),
            io_threads: 0,
            stream_timeout: None,
            stream_threads: 0,
            probes: false,
            max_metric_series: 0,
            liveness_timeout: zero,
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
        if config.forwarded.is_some() && config.trusted_proxies.is_empty() {
            return Err(Error::Config(
                "setting forwarded: anybody may send such a header; name the proxies that are believed in \
                 trusted_proxies="
                    .into(),
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
        let words = |words: &[&'static str]| Value::Words(words.iter().map(|word| (*word).into()).collect());
        assert!(refused("compression", words(&["lzw"])).ends_with("not (\"lzw\",)"));
        assert!(refused("compression", words(&["br", "br"])).contains("each once"));
        assert!(refused("compression", Value::Text("br".into())).contains("a tuple of any of zstd, br, gzip"));
        assert!(refused("request_id_header", Value::Text("content-length".into())).contains("the name of a header"));
        assert!(refused("access_log", Value::Text("".into())).contains("the path of a file"));
        assert!(refused("http1", Value::Integer(1)).contains("True or False"));
        assert!(refused("form_folder", Value::Text("/no/such/folder".into())).ends_with("not \"/no/such/folder\""));
        assert!(refused("trusted_proxies", words(&["10.0.0.1/8"])).contains("did you mean \"10.0.0.0/8\""));
        assert!(refused("trusted_proxies", Value::Text("10.0.0.1".into())).contains("a tuple of IP addresses"));
        assert!(refused("forwarded", Value::Text("forwarded".into())).contains("trusted_proxies="));
        assert!(refused("form_folder", Value::Text("".into())).contains("a folder that is there"));
    }

    #[test]
    fn one_protocol_must_be_left() {
        let off = ["http1", "http2"].map(|name| (name.to_string(), Value::Switch(false)));
        assert!(Config::parse(off).is_err());
    }
}
