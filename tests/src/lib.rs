//! Tests across crates and over real processes.
