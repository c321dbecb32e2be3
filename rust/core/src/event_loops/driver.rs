//! The first event loop of a server, turned by an event loop of another kind: that one waits by [`Driver::drive`] where it
//! would wait for its own descriptors, so that what runs on it and what is read from clients share a thread.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::crew::Crew;
use super::{CURRENT, EventLoop, EventLoops, Turned};
use crate::shutdown::Phase;

/// Turns a server's first event loop on behalf of another loop, on that one's thread. Between two turns that thread is the
/// other loop's: when it does not come back for 20 ms, a spare thread turns the loop until it does.
pub struct Driver {
    one: Arc<EventLoop>,
    crew: Arc<Crew>,
    turn: u64,
    phase: watch::Receiver<Phase>,
    /// Readable when the other loop has something to do.
    other: AsyncFd<OwnedFd>,
    /// Whether the other loop has to look, whatever `other` says.
    look: bool,
}

/// Why [`Driver::drive`] returned; the time is over where nothing is set.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Driven {
    /// [`LoopWaker::wake`] was called.
    pub called: bool,
    /// The other loop's descriptor is readable.
    pub readable: bool,
    /// The server has stopped: there is nothing left to drive.
    pub ended: bool,
}

impl EventLoops {
    /// A driver for the first loop, before its thread is started. `other` becomes readable when the other loop has something
    /// to do, as epoll's descriptors do.
    pub(crate) fn driver(&self, other: OwnedFd) -> io::Result<Driver> {
        let (one, crew) = (self.first().clone(), self.crew.clone());
        let other = {
            let _entered = one.handle.enter();
            #[expect(
                deprecated,
                reason = "sound for a type that owns its descriptor, as OwnedFd does; `register` needs unsafe"
            )]
            AsyncFd::with_interest(other, Interest::READABLE)?
        };
        one.driven.store(true, Ordering::Relaxed);
        let (turn, phase) = (one.turn.load(Ordering::Acquire), crew.lifecycle.subscribe());
        Ok(Driver { one, crew, turn, phase, other, look: true })
    }
}

impl Driver {
    /// Turns the loop until the other one has something to do, for `timeout` at the most; for one round where that is zero.
    ///
    /// `drained`: after the last [`Driven::readable`] the other loop looked and found nothing. Only then is the readiness
    /// forgotten; until then each call returns at once.
    pub fn drive(&mut self, timeout: Option<Duration>, drained: bool) -> Driven {
        self.one.busy_since.store(0, Ordering::SeqCst);
        if drained && !self.look {
            let _: io::Result<()> = self.other.try_io(Interest::READABLE, |_| Err(io::ErrorKind::WouldBlock.into()));
        }
        loop {
            if self.one.turn.load(Ordering::Acquire) != self.turn {
                self.take_back();
            }
            CURRENT.with_borrow_mut(|current| match current {
                Some((one, turn)) if *turn == self.turn && Arc::ptr_eq(one, &self.one) => {}
                _ => *current = Some((self.one.clone(), self.turn)),
            });
            let driven = match self.turn(timeout) {
                Some(Ok(driven)) => driven,
                Some(Err(Turned::Called)) => {
                    self.one.call(self.turn, &self.crew);
                    // Back after each batch: the other loop's timers and descriptors are not to wait for ours.
                    let called = self.one.called_for.load(Ordering::Acquire);
                    Driven { called, readable: true, ended: false }
                }
                Some(Err(Turned::Lost)) => continue,
                Some(Err(Turned::Stopped)) | None => {
                    CURRENT.set(None);
                    self.one.end(&self.crew);
                    return Driven { ended: true, ..Driven::default() };
                }
            };
            self.look = false;
            if self.one.turn.load(Ordering::Acquire) == self.turn {
                self.one.busy_since.store(self.crew.at(Instant::now()), Ordering::SeqCst);
                self.crew.wake_watchdog();
            }
            return driven;
        }
    }

    /// What wakes it, from any thread.
    pub fn waker(&self) -> LoopWaker {
        LoopWaker(Arc::downgrade(&self.one))
    }

    fn turn(&mut self, timeout: Option<Duration>) -> Option<Result<Driven, Turned>> {
        let Driver { one, turn, phase, other, look, .. } = self;
        one.turn(async {
            let mut stopped = pin!(phase.wait_for(|phase| *phase == Phase::Stopped));
            // One round of I/O, however much the other loop has to do: neither is to starve the other.
            let now = timeout == Some(Duration::ZERO) || *look || one.called_for.load(Ordering::Acquire);
            let mut round = pin!(tokio::task::yield_now());
            let mut over = pin!(async {
                match timeout {
                    Some(timeout) if !now => tokio::time::sleep(timeout).await,
                    _ => std::future::pending().await,
                }
            });
            poll_fn(|cx| {
                if let Poll::Ready(turned) = one.poll_turn(*turn, stopped.as_mut(), cx) {
                    return Poll::Ready(Err(turned));
                }
                if now && round.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                // Both together: while one of them is busy the other is not to wait.
                let called = one.called_for.load(Ordering::Acquire);
                let readable = *look || other.poll_read_ready(cx).is_ready();
                if called || readable || now || over.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Ok(Driven { called, readable, ended: false }));
                }
                Poll::Pending
            })
            .await
        })
    }

    /// Takes the loop back from the thread that turned it meanwhile.
    fn take_back(&mut self) {
        self.turn = self.one.next_turn();
        self.one.busy_since.store(0, Ordering::SeqCst);
        // That thread lets go of the runtime; ours waits for it there.
        self.one.wake.wake();
        // It may have seen and forgotten that `other` is readable.
        self.look = true;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| {
            if current.as_ref().is_some_and(|(one, _)| Arc::ptr_eq(one, &self.one)) {
                *current = None;
            }
        });
        self.one.driven.store(false, Ordering::Relaxed);
        if self.one.turn.load(Ordering::Acquire) == self.turn && !self.one.ended.load(Ordering::Acquire) {
            // The other loop is gone, the server is not.
            self.crew.hand_over(&self.one);
        }
    }
}

/// Makes [`Driver::drive`] return, from any thread; held without keeping anything alive.
#[derive(Clone)]
pub struct LoopWaker(Weak<EventLoop>);

impl LoopWaker {
    /// Wakes it. It stays awake until [`LoopWaker::clear`].
    pub fn wake(&self) {
        if let Some(one) = self.0.upgrade()
            && !one.called_for.swap(true, Ordering::AcqRel)
        {
            one.wake.wake();
        }
    }

    /// Says that nothing is left to do. To be called under the lock that is held for [`LoopWaker::wake`], with which the caller
    /// decides whether anything is: a wake that falls between looking and clearing would be lost.
    pub fn clear(&self) {
        if let Some(one) = self.0.upgrade() {
            one.called_for.store(false, Ordering::Release);
        }
    }
}
