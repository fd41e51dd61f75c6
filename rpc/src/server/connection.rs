//! One connection of a worker, and how long its patience lasts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use capnp::Error;
use tokio::time::Instant;

use super::ServerOptions;
use super::admission::Share;
use crate::hot::{Deliveries, Ledger};
use crate::peers::Link;
use crate::vat::Wire;

/// Whoever sends a long message more slowly than this is taken for one who does not want to end it.
const SLOW_BYTES_PER_SECOND: usize = 64 << 10;

pub(crate) struct Connection {
    /// Who is on the other side, for the log.
    pub(crate) from: String,
    pub(crate) wire: Rc<Wire>,
    /// What the other side has asked, and who answers it.
    pub(crate) ledger: Rc<Ledger>,
    /// What two nodes deliver over it.
    pub(crate) deliveries: Rc<Deliveries>,
    /// Its requests under way.
    pub(crate) share: Rc<Share>,
    opened: Instant,
    admitted: Cell<bool>,
    /// What it carries to and from a peer, if it is one's.
    link: RefCell<Option<Rc<Link>>>,
    ended: Cell<bool>,
    /// What of its traffic was counted already.
    counted: Cell<(u64, u64, u64)>,
}

impl Connection {
    pub(crate) fn new(from: String, wire: Rc<Wire>, share: Rc<Share>) -> Self {
        Self {
            from,
            wire,
            ledger: Rc::default(),
            deliveries: Rc::default(),
            share,
            opened: Instant::now(),
            admitted: Cell::new(false),
            link: RefCell::default(),
            ended: Cell::new(false),
            counted: Cell::default(),
        }
    }

    /// The visitor has shown what it has to.
    pub(crate) fn admit(&self) {
        self.admitted.set(true);
    }

    pub(crate) fn link(&self) -> Option<Rc<Link>> {
        self.link.borrow().clone()
    }

    /// Both sides want the link.
    pub(crate) fn set_link(&self, link: Rc<Link>) {
        self.admit();
        self.wire.trust();
        if self.ended.get() {
            // The connection broke while they were making up their minds.
            return link.end();
        }
        *self.link.borrow_mut() = Some(link);
    }

    /// The connection is over: nothing can be sent to the peer over it.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        if let Some(link) = self.link.borrow_mut().take() {
            link.end();
        }
    }

    /// Closes the connection if it breaks a limit of time.
    pub(super) fn watch(&self, options: &ServerOptions, now: Instant) {
        let waited = now.saturating_duration_since(self.opened);
        let silent = self.wire.silent_for(now);
        let reason = if !self.admitted.get() && waited > options.handshake_timeout {
            "it did not introduce itself in time"
        } else if self.is_unfinished_too_long(options, now) {
            "it stopped in the middle of a message"
        } else if self.wire.stalled_for(now) > options.stall_timeout {
            "it does not take its answers"
        } else if self.wire.gated_for(now) > options.stall_timeout {
            "it has had too many calls under way for too long"
        } else if silent > options.idle_timeout + self.longest_call(options) {
            return self.wire.close(Error::disconnected("idle for too long".to_owned()));
        } else {
            return;
        };
        self.wire.close(Error::failed(reason.to_owned()));
    }

    /// How long whoever waits for an answer may have nothing to say. A call that is under way for longer
    /// was taken back, and is never answered.
    fn longest_call(&self, options: &ServerOptions) -> Duration {
        match self.wire.calls() {
            0 => Duration::ZERO,
            _ => options.request_timeout_max,
        }
    }

    /// Whether a message has begun and does not end: it stands still, or drips.
    fn is_unfinished_too_long(&self, options: &ServerOptions, now: Instant) -> bool {
        self.wire.unfinished_for(now).is_some_and(|(waited, bytes)| {
            let sending = Duration::from_secs((bytes / SLOW_BYTES_PER_SECOND) as u64);
            self.wire.silent_for(now) > options.stall_timeout
                || waited > options.stall_timeout + sending
        })
    }

    /// Messages in, messages out and writes since this was last asked.
    pub(super) fn traffic(&self) -> (u64, u64, u64) {
        let (now, before) = (self.wire.traffic(), self.counted.get());
        self.counted.set(now);
        (now.0 - before.0, now.1 - before.1, now.2 - before.2)
    }
}
