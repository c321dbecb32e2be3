//! Certificates that change and end while a server runs: files that are watched, and a warning before the end.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::context::{Context, Sources};
use super::identity::{date, ends_soon};
use crate::error::{Error, Report, Stage};

/// How often watched files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait after a reload that failed.
const AGAIN: Duration = Duration::from_secs(5);
/// How often it is looked for certificates that end soon.
pub(crate) const REMIND: Duration = Duration::from_secs(12 * 60 * 60);

/// What files were like: device, inode, size, changes. Paths are followed to the file that they lead to, so that it shows
/// when any link on the way is turned to another one, as certbot and Kubernetes do it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<[i128; 7]>>);

impl Stamp {
    pub(super) fn of(sources: &Sources) -> Self {
        Stamp(sources.files().map(|path| std::fs::metadata(path).ok().map(|found| marks(&found))).collect())
    }
}

fn marks(found: &Metadata) -> [i128; 7] {
    [
        found.dev().into(),
        found.ino().into(),
        found.size().into(),
        found.mtime().into(),
        found.mtime_nsec().into(),
        found.ctime().into(),
        found.ctime_nsec().into(),
    ]
}

/// What was seen when a context's files were looked at last.
#[derive(Debug, Default)]
pub(super) struct Watched {
    last: Option<Stamp>,
    failed: Option<Failed>,
}

/// A reload that failed.
#[derive(Debug)]
struct Failed {
    stamp: Stamp,
    at: Instant,
    why: String,
}

impl Context {
    /// Reloads where the files have changed and stayed so since the last look: who writes two of them does so one after
    /// the other. What failed is tried again when they change again, and now and then: it may have been the machine's fault, or
    /// not valid yet. It is told again only if it fails in another way. Gives whether it did.
    fn look(&self) -> Result<bool, Error> {
        let (read, now) = self.stamps();
        let mut watched = self.watched.lock();
        let quiet = watched.last.as_ref() == Some(&now);
        let failed = watched.failed.as_ref().filter(|failed| failed.stamp == now);
        let waits = failed.is_some_and(|failed| failed.at.elapsed() < AGAIN);
        if now == read || waits || !quiet {
            watched.last = Some(now);
            return Ok(false);
        }
        let before = watched.failed.take().filter(|failed| failed.stamp == now).map(|failed| failed.why);
        drop(watched);
        let Err(error) = self.reload() else { return Ok(true) };
        let why = error.to_string();
        let is_known = before.as_ref() == Some(&why);
        self.watched.lock().failed = Some(Failed { stamp: now, at: Instant::now(), why });
        if is_known { Ok(false) } else { Err(error) }
    }
}

/// Looks at the files of contexts until the other end of `ended` is dropped.
///
/// By asking the file system once a second, and not by being told (inotify): that misses changes on network file systems
/// and of links on the way to a file, and has limits of its own. 10 000 contexts take 20 ms a second.
pub(crate) fn watch(
    contexts: impl Fn() -> Vec<Arc<Context>>,
    report: impl Fn(Report),
    ended: &Receiver<std::convert::Infallible>,
) {
    while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        for context in contexts().iter().filter(|context| context.rules().watch) {
            let host = context.whose();
            match context.look() {
                Ok(false) => {}
                Ok(true) => {
                    let warnings = context.identity().warnings;
                    warnings.into_iter().for_each(|warning| report(warn(format!("for {host}: {warning}"))));
                }
                Err(error) => {
                    let why =
                        format!("the certificate of {host} changed and cannot be used, the old one stays: {error}");
                    report(Report { stage: Stage::Certificate, reason: "reload", ..warn(why) });
                }
            }
        }
    }
}

/// Which certificates end soon, and what has ended.
pub(crate) fn remind(contexts: &[Arc<Context>], now: i64) -> Vec<Report> {
    contexts.iter().flat_map(|context| warnings(context, now)).map(warn).collect()
}

fn warn(message: String) -> Report {
    Report { stage: Stage::Warning, reason: "certificate", message, status: None, connection: None }
}

fn warnings(context: &Context, now: i64) -> Vec<String> {
    let (host, ends) = (context.whose(), context.ends());
    let mut warnings = Vec::new();
    let (begin, end) = ends.certificate;
    if ends_soon(begin, end, now) {
        let when = if end < now { "expired" } else { "expires" };
        let (subject, _) = context.describe();
        warnings.push(format!("the certificate of {host} (subject {subject}) {when} at {}", date(end)));
    }
    if let Some(end) = ends.staple.filter(|end| *end < now) {
        warnings.push(format!("the OCSP response of {host} expired at {} and is sent no longer", date(end)));
    }
    if let Some(end) = ends.revocation_list.filter(|end| *end < now) {
        warnings.push(format!("client_crl of {host} expired at {}: no client certificate is accepted", date(end)));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::development::Authority;
    use crate::tls::{Credentials, Form, Rules, Source};
    use time::OffsetDateTime;

    #[test]
    fn a_certificate_is_warned_of_before_and_after_its_end() {
        let issued = Authority::new("ours").unwrap().issue(&["a.test".into()], 30).unwrap();
        let (cert, key) = (Source::Bytes(issued.cert_pem.into()), Source::Bytes(issued.key_pem.into()));
        let credentials = Credentials { form: Form::Pair { cert, key: Some(key) }, password: None };
        let context = Context::new(Some("a.test"), credentials.into(), Rules::default(), None).unwrap();
        let contexts = [Arc::new(context)];
        let days = |days: i64| OffsetDateTime::now_utc().unix_timestamp() + days * 86_400;
        let said = |now| remind(&contexts, now).into_iter().map(|report| report.message).collect::<Vec<_>>();
        assert!(said(days(0)).is_empty() && said(days(19)).is_empty());
        assert!(said(days(20))[0].starts_with("the certificate of host a.test (subject CN=a.test) expires at "));
        assert!(said(days(31))[0].contains("expired at"));
    }
}
