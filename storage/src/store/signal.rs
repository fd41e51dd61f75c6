//! Wakes whoever does the background work, and whoever waits for it to be done.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::lock;

#[derive(Default)]
pub(super) struct Signal {
    state: Mutex<State>,
    raised: Condvar,
    installed: Condvar,
}

#[derive(Default)]
struct State {
    /// There may be work that nobody has looked for yet.
    raised: bool,
    /// How often a result of the work was installed.
    installed: u64,
}

impl Signal {
    /// There may be work to do.
    pub(super) fn raise(&self) {
        lock(&self.state).raised = true;
        self.raised.notify_one();
    }

    /// Waits until there may be work; whether there may.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let state = lock(&self.state);
        let waited = self.raised.wait_timeout_while(state, timeout, |state| !state.raised);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.raised)
    }

    /// Some work was done. There may be more.
    pub(super) fn install(&self) {
        let mut state = lock(&self.state);
        state.installed += 1;
        state.raised = true;
        drop(state);
        self.raised.notify_one();
        self.installed.notify_all();
    }

    pub(super) fn installed(&self) -> u64 {
        lock(&self.state).installed
    }

    /// Waits until work was done since [`Signal::installed`] said `seen`, or for a moment: who does
    /// the work may have failed, and then somebody else must try.
    pub(super) fn wait_installed(&self, seen: u64) {
        let state = lock(&self.state);
        let moment = Duration::from_millis(100);
        let waited =
            self.installed.wait_timeout_while(state, moment, |state| state.installed == seen);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}
