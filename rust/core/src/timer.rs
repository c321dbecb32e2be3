//! One timer for all waits of a connection.

use std::pin::Pin;
use std::time::Instant;

use tokio::time::Sleep;

/// It is only ever moved forward when it fires: most waits end long before, and moving it each time would cost more than
/// they do.
pub(crate) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    pub(crate) fn new(first: Instant) -> Self {
        Timer(Box::pin(tokio::time::sleep_until(first.into())))
    }

    pub(crate) async fn until(&mut self, deadline: Instant) {
        let deadline = deadline.into();
        if self.0.deadline() > deadline {
            self.0.as_mut().reset(deadline);
        }
        while {
            self.0.as_mut().await;
            self.0.deadline() < deadline
        } {
            self.0.as_mut().reset(deadline);
        }
    }
}
