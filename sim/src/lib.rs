//! A whole Kvorum cluster on one thread from one seed.
//!
//! Real nodes (their cores, their engine, their logs) run over a virtual network, virtual disks and
//! virtual time. The seed decides everything: what clients ask, how long each message and each sync
//! takes, which faults strike when. The same seed gives the same run, byte for byte, so that what
//! is found once can be found again.
//!
//! Start with [`two_phase::simulate`], [`any_replica::simulate`] and [`paxos::simulate`]. A run is judged by what is true of the protocol's messages
//! at every moment, by whether everything comes to rest once it is healed, by whether all copies
//! are the same, and by the history of what clients saw (crate `kvorum-checker`, which knows
//! nothing of the store).

pub mod any_replica;
pub mod paxos;
pub mod two_phase;

pub mod engine;

mod shrink;
mod totals;
mod violation;

pub mod planted;
pub mod reduction;

mod faults;
mod process;
mod world;

mod chance;
mod client;
mod contents;
mod disk;
mod machine;
mod network;
mod plan;
mod queue;
mod rot;
mod trace;
mod words;
mod work;

pub use faults::{Counts, Fault};
pub use planted::Planted;
pub use reduction::Reduction;
pub use shrink::{Shrunk, shrink};
pub use totals::{Simulate, Totals, run_seeds, threads};
pub use violation::{Promise, Violation};

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kvorum_checker::History;
use kvorum_replication::paxos::AcceptorRestart;
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
    /// What an acceptor that stops by itself knows when it comes back; otherwise the seed decides,
    /// and never for [`AcceptorRestart::Amnesia`], which breaks Paxos.
    pub acceptor_restart: Option<AcceptorRestart>,
}

impl Setup {
    /// The whole run of this seed, with sound nodes and without a trace.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (reduction, planted) = (Reduction::default(), Planted::default());
        Self { seed, traced: false, reduction, planted, acceptor_restart: None }
    }

    /// The same, with a trace.
    #[must_use]
    pub fn traced(self) -> Self {
        Self { traced: true, ..self }
    }
}

/// As flags, which repeat it.
impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {}", self.seed)?;
        if let Some(restart) = self.acceptor_restart {
            let restart = match restart {
                AcceptorRestart::Durable => "durable",
                AcceptorRestart::Rejoin => "rejoin",
                AcceptorRestart::Amnesia => "amnesia",
            };
            write!(f, " --acceptor-restart {restart}")?;
        }
        let reduction = self.reduction.to_string();
        if !reduction.is_empty() {
            write!(f, " {reduction}")?;
        }
        f.write_str(if self.traced { " --trace" } else { "" })
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
    pub violation: Option<Violation>,
    /// What there was of it after its reduction.
    pub planned: Planned,
    /// The faults that struck.
    pub faults: Counts,
    /// What the nodes and their stores did, by name: a run in which nothing was ever flushed says
    /// nothing about flushes.
    pub activity: Activity,
    /// What has to happen in some run, or the runs show nothing.
    pub happened: Activity,
    /// What clients saw.
    pub history: History,
    /// How long it was, in virtual nanoseconds.
    pub nanoseconds: u64,
    /// What happened, line by line, if it was asked for.
    pub trace: Option<String>,
}

impl Run {
    /// A run of which nothing is known.
    fn empty(seed: u64) -> Self {
        Self {
            seed,
            violation: None,
            planned: Planned::default(),
            faults: Counts::default(),
            activity: Activity::new(),
            happened: Activity::new(),
            history: History::new(),
            nanoseconds: 0,
            trace: None,
        }
    }
}

/// The size of a run, for whoever wants a smaller one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// The numbers of the faults that have a time of their own.
    pub faults: Vec<u32>,
    /// How many clients there were.
    pub clients: u64,
    /// The most operations that one of them began.
    pub operations: u64,
    /// After how many milliseconds everything healed, or was to heal.
    pub heal_at: u64,
}

/// What a panic said.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|&text| text.to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Runs a protocol. A process that panics breaks the run like any other violation.
fn run<P: Protocol>(protocol: P, setup: &Setup) -> Run {
    let mut world = World::new(protocol, setup);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        world.fail(Promise::NoPanic, format!("a process panicked: {}", words_of(&*panic)));
    }
    let happened = world.protocol.happened().into_iter();
    Run {
        seed: setup.seed,
        planned: world.planned(),
        happened: happened.map(|(name, count)| (name.to_owned(), count)).collect(),
        violation: world.broken,
        faults: world.counts,
        activity: world.activity,
        history: world.history,
        nanoseconds: world.queue.now(),
        trace: world.trace.into_text(),
    }
}
