//! Simulations in which processes may panic.

use std::panic;

/// A process that panics is a violation like others, and is reported once.
pub(crate) fn quietly<T>(simulate: impl FnOnce() -> T) -> T {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let result = simulate();
    panic::set_hook(hook);
    result
}
