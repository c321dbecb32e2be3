//! The text in which Prometheus reads metrics: its own format 0.0.4, and OpenMetrics 1.0, which differ in little.
//!
//! `prometheus-client` and its like want to own the counters and write one of the two formats. Ours are counted where
//! requests are served, and both formats together are this page.

use std::fmt::{Display, Write};

use super::list::Kind;
use super::served::Histogram;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The content type that says so.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What a client asks for by `Accept` (RFC 9110 section 12.5.1): OpenMetrics where it is named and not weighed less
    /// than plain text.
    pub(crate) fn of(accept: &[u8]) -> Self {
        let (mut open, mut plain) = (0, 0);
        for item in accept.split(|&byte| byte == b',') {
            let mut parts = item.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let kind = parts.next().unwrap_or_default();
            let (mut weight, mut known) = (1_000, true);
            for parameter in parts {
                if let Some(number) = parameter.strip_prefix(b"q=") {
                    weight = thousandths(number);
                } else if let Some(version) = parameter.strip_prefix(b"version=") {
                    known = matches!(version, b"0.0.1" | b"1.0.0" | b"\"1.0.0\"" | b"0.0.4");
                }
            }
            let best = if kind.eq_ignore_ascii_case(b"application/openmetrics-text") {
                &mut open
            } else if kind.eq_ignore_ascii_case(b"text/plain") {
                &mut plain
            } else {
                continue;
            };
            if known {
                *best = weight.max(*best);
            }
        }
        if open > 0 && open >= plain { Format::OpenMetrics } else { Format::Prometheus }
    }
}

/// A weight in thousandths; 0 for what is none.
fn thousandths(number: &[u8]) -> u32 {
    let number = std::str::from_utf8(number).ok().and_then(|number| number.parse::<f32>().ok());
    number.filter(|number| (0.0..=1.0).contains(number)).map_or(0, |number| (number * 1_000.0) as u32)
}

/// A text that grows.
pub(super) struct Writer {
    text: String,
    format: Format,
    /// The name of the family that is written, without what its samples have behind it.
    name: String,
    suffix: &'static str,
}

impl Writer {
    pub(super) fn new(format: Format) -> Self {
        Writer { text: String::with_capacity(16 * 1024), format, name: String::new(), suffix: "" }
    }

    /// Begins a family of counters or gauges.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        match kind {
            Kind::Counter => self.begin(name, "_total", "counter", help),
            Kind::Gauge => self.begin(name, "", "gauge", help),
        }
    }

    fn begin(&mut self, name: &str, suffix: &'static str, kind: &str, help: &str) {
        name.clone_into(&mut self.name);
        self.suffix = suffix;
        // OpenMetrics names the family, Prometheus the samples.
        let shown = if self.format == Format::OpenMetrics { "" } else { suffix };
        let _ = writeln!(self.text, "# HELP {name}{shown} {}", Help(help));
        let _ = writeln!(self.text, "# TYPE {name}{shown} {kind}");
    }

    /// One sample of the family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line(self.suffix, labels, value);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (number, (name, text)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{name}=\"{}\"", Label(text));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }

    /// Begins a family of histograms.
    pub(super) fn histograms(&mut self, name: &str, help: &str) {
        self.begin(name, "", "histogram", help);
    }

    /// One of the family.
    pub(super) fn histogram<const N: usize>(&mut self, labels: [(&str, &str); N], histogram: &Histogram) {
        let mut bucket = |bound: &str, count| {
            let mut with_bound = labels.to_vec();
            with_bound.push(("le", bound));
            self.line("_bucket", &with_bound, count);
        };
        // OpenMetrics wants whole bounds to have a fraction too.
        histogram.buckets().for_each(|(bound, count)| bucket(&format!("{bound:?}"), count));
        bucket("+Inf", histogram.count());
        self.line("_sum", &labels, histogram.sum());
        self.line("_count", &labels, histogram.count());
    }

    /// A family of one sample.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// The value of a label: backslash, quote and line feed are escaped in it; other control characters are no use to anybody.
struct Label<'a>(&'a str);

impl Display for Label<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            letter if letter.is_control() => f.write_char('\u{fffd}'),
            letter => f.write_char(letter),
        })
    }
}

/// A help text as a sentence.
struct Help<'a>(&'a str);

impl Display for Help<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut letters = self.0.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).try_for_each(|letter| f.write_char(letter))?;
        write!(f, "{}.", letters.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_which_format() {
        // What Prometheus 2.45 and 3.0 send, and others.
        let old = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let new = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for accept in [old, new, "application/openmetrics-text", "APPLICATION/OPENMETRICS-TEXT; q=0.1"] {
            assert_eq!(Format::of(accept.as_bytes()), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/html,*/*;q=0.8",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.2,text/plain;q=0.9",
            "application/openmetrics-text;q=nan",
            ";;,=,q=",
        ] {
            assert_eq!(Format::of(accept.as_bytes()), Format::Prometheus, "{accept}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut writer = Writer::new(Format::Prometheus);
        writer.family("a", Kind::Gauge, "what it is");
        writer.sample(&[("b", "c\"\\\n\r\u{1b}d"), ("e", "f")], 1);
        let expected = "# HELP a What it is.\n# TYPE a gauge\na{b=\"c\\\"\\\\\\n\u{fffd}\u{fffd}d\",e=\"f\"} 1\n";
        assert_eq!(writer.finish(), expected);
    }

    #[test]
    fn the_two_formats_differ_in_the_names_of_counters() {
        let text = |format| {
            let mut writer = Writer::new(format);
            writer.single("a", Kind::Counter, "what it is", 1);
            writer.finish()
        };
        assert_eq!(text(Format::Prometheus), "# HELP a_total What it is.\n# TYPE a_total counter\na_total 1\n");
        assert_eq!(text(Format::OpenMetrics), "# HELP a What it is.\n# TYPE a counter\na_total 1\n# EOF\n");
    }
}
