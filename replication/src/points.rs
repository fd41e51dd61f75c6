//! Fail points: moments between two steps of a protocol at which a test makes a process die or
//! pause. Each protocol lists its own.

/// A moment of the protocol with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// What the command line calls it.
    pub name: &'static str,
    /// Which moment it is, in one sentence.
    pub moment: &'static str,
}
