//! The pages of several processes as one: a family of each has its samples together, as both formats want it.

use super::exposition::{Format, Writer};
use super::list::Kind;
use super::process;

/// Families in the order in which they came.
pub(crate) struct Merged(Vec<Family>);

struct Family {
    /// Its `HELP` and `TYPE`.
    head: String,
    samples: String,
}

impl Merged {
    /// What the supervisor says of itself.
    pub(crate) fn of_supervisor(format: Format, alive: usize, ended: u64) -> Self {
        let mut writer = Writer::new(format);
        writer.single("portico_workers", Kind::Gauge, "workers that serve now", alive);
        writer.single("portico_workers_ended", Kind::Counter, "workers that have ended, for whatever reason", ended);
        process::write(&mut writer);
        let mut merged = Merged(Vec::new());
        merged.take(None, &writer.finish());
        merged
    }

    /// Adds the page of a worker, whose samples get its name as a label.
    pub(crate) fn add(&mut self, worker: &str, page: &str) {
        self.take(Some(worker), page);
    }

    fn take(&mut self, worker: Option<&str>, page: &str) {
        // Every page is ours, so a family begins with its HELP and its TYPE.
        let mut at = None;
        let mut lines = page.lines().peekable();
        while let Some(line) = lines.next() {
            if line.starts_with("# HELP ") {
                let head =
                    format!("{line}\n{}\n", lines.next_if(|line| line.starts_with("# TYPE ")).unwrap_or_default());
                let place = self.0.iter().position(|family| family.head == head);
                at = Some(place.unwrap_or_else(|| {
                    self.0.push(Family { head, samples: String::new() });
                    self.0.len() - 1
                }));
            } else if let Some(family) = at.filter(|_| !line.starts_with('#')).and_then(|at: usize| self.0.get_mut(at))
            {
                push(&mut family.samples, line, worker);
            }
        }
    }

    pub(crate) fn finish(self, format: Format) -> String {
        let mut text: String = self.0.into_iter().flat_map(|family| [family.head, family.samples]).collect();
        if format == Format::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }
}

/// A sample with one more label before the others.
fn push(samples: &mut String, line: &str, worker: Option<&str>) {
    match (worker, line.find(['{', ' '])) {
        (Some(worker), Some(end)) => {
            let (name, rest) = line.split_at(end);
            let label = format!("{name}{{worker=\"{worker}\"");
            samples.push_str(&label);
            match rest.strip_prefix('{') {
                Some(labels) => samples.push_str(&format!(",{labels}")),
                None => samples.push_str(&format!("}}{rest}")),
            }
        }
        _ => samples.push_str(line),
    }
    samples.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_stand_together() {
        let page = |number| {
            format!("# HELP a A.\n# TYPE a gauge\na {number}\n# HELP b B.\n# TYPE b gauge\nb{{c=\"d e\"}} {number}\n")
        };
        let mut merged = Merged(Vec::new());
        merged.add("0", &page(1));
        merged.add("1", &page(2));
        assert_eq!(
            merged.finish(Format::OpenMetrics),
            "# HELP a A.\n# TYPE a gauge\na{worker=\"0\"} 1\na{worker=\"1\"} 2\n\
             # HELP b B.\n# TYPE b gauge\nb{worker=\"0\",c=\"d e\"} 1\nb{worker=\"1\",c=\"d e\"} 2\n# EOF\n"
        );
    }
}
