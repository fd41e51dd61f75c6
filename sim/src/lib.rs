//! A whole Kvorum cluster on one thread from one seed.
//!
//! Real nodes (their cores, their engine, their logs) run over a virtual network, virtual disks and
//! virtual time. The seed decides everything: what clients ask, how long each message and each sync
//! takes, which faults strike when. The same seed gives the same run, byte for byte, so that what
//! is found once can be found again.
//!
//! Start with [`two_phase::simulate`]. A run is judged by what is true of the protocol's messages
//! at every moment, by whether everything comes to rest once it is healed, by whether all copies
//! are the same, and by the history of what clients saw (crate `kvorum-checker`, which knows
//! nothing of the store).

pub mod two_phase;

pub mod planted;
pub mod reduction;

mod faults;
mod process;
mod world;

mod chance;
mod client;
mod disk;
mod machine;
mod network;
mod plan;
mod queue;
mod trace;

pub use faults::{Counts, Fault};
pub use planted::Planted;
pub use reduction::Reduction;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kvorum_checker::History;
use process::Protocol;
use world::World;

/// Which run it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Decides everything that is not said here.
    pub seed: u64,
    /// Whether the answer says line by line what happened. It changes nothing else.
    pub traced: bool,
    /// What is left out.
    pub reduction: Reduction,
    /// The bug that the nodes have on purpose.
    pub planted: Planted,
}

impl Setup {
    /// The whole run of this seed, with sound nodes and without a trace.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (reduction, planted) = (Reduction::default(), Planted::default());
        Self { seed, traced: false, reduction, planted }
    }

    /// The same, with a trace.
    #[must_use]
    pub fn traced(self) -> Self {
        Self { traced: true, ..self }
    }
}

/// Counters by name.
pub type Activity = BTreeMap<String, u64>;

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// What went wrong, if anything did.
    pub violation: Option<String>,
    /// The faults that struck.
    pub faults: Counts,
    /// What the nodes and their stores did, by name: a run in which nothing was ever flushed says
    /// nothing about flushes.
    pub activity: Activity,
    /// What clients saw.
    pub history: History,
    /// How long it was, in virtual nanoseconds.
    pub nanoseconds: u64,
    /// What happened, line by line, if it was asked for.
    pub trace: Option<String>,
}

/// Runs a protocol. A process that panics breaks the run like any other violation.
fn run<P: Protocol>(protocol: P, setup: &Setup) -> Run {
    let mut world = World::new(protocol, setup);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        world.fail(format!("a process panicked: {}", words.unwrap_or_default()));
    }
    Run {
        seed: setup.seed,
        violation: world.broken,
        faults: world.counts,
        activity: world.activity,
        history: world.history,
        nanoseconds: world.queue.now(),
        trace: world.trace.into_text(),
    }
}
