//! The `date` header (RFC 9110 section 6.6.1).

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;

/// The current date, formatted at most twice a second on each thread.
pub(crate) fn now() -> HeaderValue {
    thread_local! {
        static CACHE: RefCell<Option<(Instant, HeaderValue)>> = const { RefCell::new(None) };
    }
    CACHE.with(|cache| {
        let mut cache = cache.borrow_mut();
        let now = Instant::now();
        match &*cache {
            Some((made, date)) if now.duration_since(*made) < Duration::from_millis(500) => date.clone(),
            _ => cache.insert((now, of(SystemTime::now()))).1.clone(),
        }
    })
}

/// A date as headers have it (RFC 9110 section 5.6.7).
pub(crate) fn of(time: SystemTime) -> HeaderValue {
    // Such a date is plain ASCII; an empty one would be none.
    HeaderValue::try_from(httpdate::fmt_http_date(time)).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        let date = super::now();
        let date = date.to_str().unwrap();
        assert!(date.ends_with(" GMT") && date.len() == 29);
        assert!(httpdate::parse_http_date(date).is_ok());
    }
}
