//! Two-phase commit without a coordinator process: whichever replica a client asks coordinates.

pub mod message;
pub mod options;
pub mod planted;
pub mod points;
pub mod record;

pub use options::ReplicaOptions;
