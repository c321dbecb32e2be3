//! What whoever starts, stops and restarts servers asks them: whether they have begun, take requests, and live.

use std::sync::atomic::Ordering;

use http::{StatusCode, header};

use crate::http::Response;
use crate::server::Service;

/// One of the questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Has it listened?
    Startup,
    /// Does it take requests now?
    Readiness,
    /// Do its event loops turn? If not, it is to be started anew.
    Liveness,
}

impl Probe {
    /// The one that is asked at a path.
    pub(crate) fn at(path: &str) -> Option<Self> {
        Some(match path.strip_prefix("/probe/")? {
            "startup" => Probe::Startup,
            "readiness" => Probe::Readiness,
            "liveness" => Probe::Liveness,
            _ => return None,
        })
    }

    /// 200, or 503 and why not.
    pub(crate) fn answer(self, service: &Service) -> Response {
        let told = match self {
            Probe::Startup => started(service),
            Probe::Readiness => ready(service),
            Probe::Liveness => alive(service),
        };
        let (status, mut text) = match told {
            Ok(text) => (StatusCode::OK, text.to_string()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        };
        text.push('\n');
        Response::new(status, text)
            .with(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .with(header::CACHE_CONTROL, "no-store")
    }
}

type Told = Result<&'static str, String>;

fn started(service: &Service) -> Told {
    if service.has_listened.load(Ordering::Acquire) { Ok("started") } else { Err("not listening yet".into()) }
}

fn ready(service: &Service) -> Told {
    started(service)?;
    if !service.lifecycle.is_serving() {
        return Err("draining: the server was told to close".into());
    }
    if service.listening.load(Ordering::Acquire) == 0 {
        return Err("every listener was closed".into());
    }
    let (now, most) = (service.metrics.requests_in_flight.get(), service.config.max_in_flight as u64);
    if now >= most {
        return Err(format!("overloaded: {now} requests are in flight, of {most} (max_in_flight)"));
    }
    Ok("ready")
}

fn alive(service: &Service) -> Told {
    let limit = service.config.liveness_timeout;
    service.pulse.feel();
    let stuck: Vec<_> = service
        .pulse
        .tell()
        .into_iter()
        .filter_map(|turning| Some((turning.name, turning.waiting.filter(|waiting| *waiting >= limit)?)))
        .map(|(name, waiting)| format!("{name} has not turned for {} s", waiting.as_secs()))
        .collect();
    if stuck.is_empty() { Ok("alive") } else { Err(stuck.join("; ")) }
}
