//! What ends a server: a signal, or its node.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Why a server is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Somebody asked for it.
    Asked(&'static str),
    /// The node has ended by itself.
    Node,
}

/// The signals that ask a server to stop.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals from here on. Needs tokio's runtime.
    pub(super) fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for a signal or for the node's end.
    pub(super) async fn or_end_of(&mut self, node: &mut oneshot::Receiver<()>) -> End {
        tokio::select! {
            name = self.next() => End::Asked(name),
            // Also when the sender is gone: the node's thread has ended without a word.
            _ = node => End::Node,
        }
    }
}
