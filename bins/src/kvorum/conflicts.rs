//! What becomes of a write that meets another one.

use clap::{Args, ValueEnum};
use kvorum_rpc::client;

/// The flag of the commands that write.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Conflicts {
    /// What to do if another transaction in flight holds a key, or changes what this one has read
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    #[arg(hide_default_value = true)]
    pub(crate) on_conflict: OnConflict,
}

/// What to do about a conflict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnConflict {
    /// Say so at once, with exit code 3; the default
    #[default]
    Fail,
    /// Try again, with pauses by chance, until --timeout is over; then exit code 3
    Retry,
}

impl From<OnConflict> for client::OnConflict {
    fn from(on_conflict: OnConflict) -> Self {
        match on_conflict {
            OnConflict::Fail => Self::Fail,
            OnConflict::Retry => Self::Retry,
        }
    }
}
