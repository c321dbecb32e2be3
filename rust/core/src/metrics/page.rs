//! Everything that `/metrics` shows of one server.

use std::collections::BTreeMap;

pub(crate) use super::exposition::Format;
use super::exposition::Writer;
use super::list::{Counted, Kind, Stat};
use super::process;
use crate::server::Service;

/// The whole page.
pub(crate) fn render(service: &Service, format: Format) -> String {
    let mut writer = Writer::new(format);
    let up = u8::from(service.lifecycle.is_serving());
    writer.single("portico_up", Kind::Gauge, "1 while the server serves, 0 while it drains", up);
    writer.family("portico_build_info", Kind::Gauge, "the version that serves");
    writer.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    service.metrics.list().iter().for_each(|counted| count(&mut writer, counted));
    requests(&mut writer, service);
    limits(&mut writer, service);
    loops(&mut writer, service);
    certificates(&mut writer, service);
    process::write(&mut writer);
    writer.finish()
}

fn count(writer: &mut Writer, counted: &Counted) {
    writer.family(&format!("portico_{}", counted.name), counted.kind, counted.doc);
    match &counted.stat {
        Stat::Number(number) => writer.sample(&[], number),
        Stat::Labelled(label, numbers) => numbers.iter().for_each(|(text, number)| {
            writer.sample(&[(label, text)], number);
        }),
        Stat::Seconds(label, numbers) => numbers.iter().for_each(|(text, number)| {
            writer.sample(&[(label, text)], number);
        }),
    }
}

fn requests(writer: &mut Writer, service: &Service) {
    let help = "how long requests took, from the end of their head to the end of their response";
    writer.histograms("portico_request_duration_seconds", help);
    for (labels, histogram) in service.metrics.served.tell() {
        let labels = [
            ("host", labels.host()),
            ("route", labels.route()),
            ("method", labels.method()),
            ("status", labels.status()),
        ];
        writer.histogram(labels, &histogram);
    }
}

fn loops(writer: &mut Writer, service: &Service) {
    let help = "how long an event loop took to turn when it was asked to, the last time";
    writer.family("portico_loop_lag_seconds", Kind::Gauge, help);
    for turning in service.pulse.tell() {
        let lag = turning.waiting.map_or(turning.lag, |waiting| waiting.max(turning.lag));
        writer.sample(&[("loop", &turning.name)], lag.as_secs_f64());
    }
}

/// Beside what is open or in flight, how much may be.
fn limits(writer: &mut Writer, service: &Service) {
    let config = &service.config;
    let most = config.max_connections;
    writer.single("portico_connections_max", Kind::Gauge, "the setting max_connections", most);
    let most = config.max_in_flight;
    writer.single("portico_requests_in_flight_max", Kind::Gauge, "the setting max_in_flight", most);
}

/// The most hosts whose certificates are shown: those that end first.
const CERTIFICATES: usize = 1_000;

fn certificates(writer: &mut Writer, service: &Service) {
    let contexts = service.hosts.read().contexts();
    // A host may have several. The one that ends first is the one to look after.
    let mut ends: BTreeMap<&str, i64> = BTreeMap::new();
    for context in &contexts {
        let end = context.not_after();
        let first = ends.entry(context.host().unwrap_or("")).or_insert(end);
        *first = end.min(*first);
    }
    let mut ends: Vec<_> = ends.into_iter().collect();
    ends.sort_by_key(|(_, end)| *end);
    let help =
        "when the certificate of a host ends, the first where it has several, since 1970; host \"\" is the default";
    writer.family("portico_certificate_not_after_timestamp_seconds", Kind::Gauge, help);
    ends.iter().take(CERTIFICATES).for_each(|(host, end)| writer.sample(&[("host", host)], end));
}
