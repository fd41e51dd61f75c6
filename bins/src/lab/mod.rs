//! The lab's library side: what breaks real processes, and what is reported of it.

pub mod report;

pub mod numbers;
