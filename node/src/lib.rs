//! The shell around a protocol core: event loop, group commit, recovery, identity.
