//! What happens if somebody ends a command that has a cluster of its own.

use std::thread;

use kvorum::cluster::Cleaner;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::CommandError;

/// Cleans up and ends this process at the first SIGINT, SIGTERM or SIGHUP. On a thread of its own,
/// since the main one may be waiting for a line to be typed.
pub(crate) fn clean_up_on(cleaner: Cleaner) -> Result<(), CommandError> {
    let cannot = |error| CommandError::io("cannot wait for signals", &error);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    let (interrupt, terminate, hangup) = {
        let _context = runtime.enter();
        let on = |kind| signal(kind).map_err(cannot);
        (on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?)
    };
    let (mut interrupt, mut terminate, mut hangup) = (interrupt, terminate, hangup);
    let wait = move || {
        let kind = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
                _ = hangup.recv() => SignalKind::hangup(),
            }
        });
        // As the shell reports a process that died of the signal.
        cleaner.clean_and_exit(128 + kind.as_raw_value())
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop).map_err(cannot)
}
