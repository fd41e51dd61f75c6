//! What happens to a cluster if somebody ends the command that it belongs to.

use std::io;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use super::Cleaner;

impl Cleaner {
    /// Cleans up and ends this process at the first SIGINT, SIGTERM or SIGHUP, with the code by which
    /// a shell reports that signal. On a thread of its own, since the main one may be waiting for a
    /// line to be typed.
    ///
    /// # Errors
    /// If the operating system lets nobody wait for signals.
    pub fn clean_up_on_signals(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate, mut hangup) = {
            let _context = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        let wait = move || {
            let kind = runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => SignalKind::interrupt(),
                    _ = terminate.recv() => SignalKind::terminate(),
                    _ = hangup.recv() => SignalKind::hangup(),
                }
            });
            self.clean_and_exit(128 + kind.as_raw_value())
        };
        thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
    }
}
