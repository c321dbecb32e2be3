//! What the process takes of its machine, under the names that Prometheus' clients share.

use super::exposition::Writer;
use super::list::Kind;

/// The numbers of `/proc/self/stat` from the third field on (proc_pid_stat(5)).
struct Status(Vec<u64>);

impl Status {
    fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name before may hold anything, also brackets and spaces.
        let (_, fields) = text.rsplit_once(')')?;
        Some(Status(fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect()))
    }

    /// By its number in the manual.
    fn field(&self, number: usize) -> u64 {
        self.0.get(number - 3).copied().unwrap_or(0)
    }

    fn cpu_seconds(&self) -> f64 {
        (self.field(14) + self.field(15)) as f64 / ticks()
    }

    fn resident_bytes(&self) -> u64 {
        self.field(24) * rustix::param::page_size() as u64
    }
}

/// How many of the units of `/proc/self/stat` make a second.
fn ticks() -> f64 {
    rustix::param::clock_ticks_per_second().max(1) as f64
}

/// Seconds of processors, and bytes of memory; none where the system does not tell.
pub(crate) fn cpu_and_memory() -> (Option<f64>, Option<u64>) {
    let status = Status::read();
    (status.as_ref().map(Status::cpu_seconds), status.as_ref().map(Status::resident_bytes))
}

/// When the machine was started, in seconds since 1970.
fn boot_time() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Open descriptors, without the one that this takes.
fn descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

/// The most descriptors, and the most bytes of address space, where there is a limit.
fn limits() -> (Option<u64>, Option<u64>) {
    use rustix::process::{Resource, getrlimit};
    (getrlimit(Resource::Nofile).current, getrlimit(Resource::As).current)
}

/// Writes what this system tells; without `/proc` that is next to nothing.
pub(super) fn write(writer: &mut Writer) {
    if let Some(status) = Status::read() {
        writer.single(
            "process_cpu_seconds",
            Kind::Counter,
            "time of processors, in user and system mode",
            status.cpu_seconds(),
        );
        writer.single("process_resident_memory_bytes", Kind::Gauge, "memory in use", status.resident_bytes());
        writer.single("process_virtual_memory_bytes", Kind::Gauge, "address space in use", status.field(23));
        writer.single("process_threads", Kind::Gauge, "threads", status.field(20));
        if let Some(boot) = boot_time() {
            let start = boot as f64 + status.field(22) as f64 / ticks();
            writer.single("process_start_time_seconds", Kind::Gauge, "when it was started, since 1970", start);
        }
    }
    if let Some(open) = descriptors() {
        writer.single("process_open_fds", Kind::Gauge, "open descriptors", open);
    }
    let (descriptors, space) = limits();
    if let Some(most) = descriptors {
        writer.single("process_max_fds", Kind::Gauge, "the most descriptors that it may open", most);
    }
    if let Some(most) = space {
        writer.single("process_virtual_memory_max_bytes", Kind::Gauge, "the most address space that it may use", most);
    }
}
