//! What a judge is told of a core's tables, under every protocol.

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What is in it.
    pub name: &'static str,
    /// How much of it.
    pub len: usize,
    /// The most there may be.
    pub max: usize,
}
