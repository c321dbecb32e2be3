//! How a connection ends, such that the client can read what was sent last.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::stream::Stream;
use crate::timer::Timer;

/// After the last byte, how long a client may still send what nobody reads, in all and without progress.
/// Closing at once would reset the connection and destroy what is on its way (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(10);
pub(crate) const LINGER_IDLE: Duration = Duration::from_secs(2);

/// Tells the client that nothing more comes: close_notify, then FIN.
pub(crate) async fn shut_down(stream: &mut Stream, timer: &mut Timer) {
    let patience = Instant::now() + LINGER_IDLE;
    tokio::select! {
        biased;
        _ = stream.shutdown() => {}
        () = timer.until(patience) => {}
    }
}

/// Reads what nobody wants until the client ends too, for a bounded time.
pub(crate) async fn linger(stream: &mut Stream, timer: &mut Timer) {
    let end = Instant::now() + LINGER;
    loop {
        let patience = end.min(Instant::now() + LINGER_IDLE);
        tokio::select! {
            biased;
            read = stream.read_some(|_| ()) => if matches!(read, Ok(0) | Err(_)) { return },
            () = timer.until(patience) => return,
        }
        if Instant::now() >= end {
            return;
        }
    }
}
