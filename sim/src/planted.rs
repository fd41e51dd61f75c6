//! Deliberate bugs, gathered from the crates that have them. An ordinary build has none.

/// Which deliberate bug a run has. This build knows none, so there is only one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted(());
