//! What a server logs, on standard error.

use std::backtrace::Backtrace;
use std::io::{self, IsTerminal as _};
use std::panic;
use std::process;

use tracing_subscriber::EnvFilter;

/// Whether the text says what to log.
pub(super) fn check_filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err("write error, warn, info, debug or trace, or info,kvorum_rpc=debug".to_owned()),
    }
}

/// Logs from here on, and ends the process when any of its threads panics: a server that is half
/// alive holds its locks and its port, and answers nobody.
pub(super) fn start(filter: &str) {
    let filter = EnvFilter::builder().parse_lossy(filter);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // Whoever closes standard error does without the log; without this, a line that cannot be
        // written would panic.
        .log_internal_errors(false)
        .finish();
    // Only the first start in a process counts, and there is no other.
    let _ = tracing::subscriber::set_global_default(subscriber);
    panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, backtrace = %Backtrace::force_capture(), "a bug: the process ends");
        process::abort();
    }));
}
