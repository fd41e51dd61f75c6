//! The lab's library side: what breaks real processes, and what is reported of it.

pub mod nemesis;
pub mod proxy;
pub mod report;
pub mod run;
pub mod summary;
pub mod workload;

pub mod absences;
pub mod numbers;

mod available;
mod clients;
mod clock;
mod judge;
mod leaders;
