//! What happened, as lines for people.

use std::fmt::Write;

use crate::queue::{Instant, SECOND};

/// Collects a run's lines, or nothing.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    text: Option<String>,
}

impl Trace {
    pub(crate) fn new(wanted: bool) -> Self {
        Self { text: wanted.then(String::new) }
    }

    /// Adds a line; `words` is asked only if somebody reads it.
    pub(crate) fn line(
        &mut self,
        now: Instant,
        who: impl std::fmt::Display,
        words: impl FnOnce() -> String,
    ) {
        if let Some(text) = &mut self.text {
            let micros = now % SECOND / 1_000;
            let who = who.to_string();
            writeln!(text, "{:>3}.{micros:06} {who:<4} {}", now / SECOND, words())
                .expect("writing to a string cannot fail");
        }
    }

    pub(crate) fn into_text(self) -> Option<String> {
        self.text
    }
}
