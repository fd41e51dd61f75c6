//! What breaks a cluster of real processes, on purpose and by a seed.
//!
//! Four hands strike at the same time, each with a schedule of its own: one at processes, one at
//! the network between them, one at disks, one at clocks. So a process may be killed while it is cut
//! off, and its disk be full while it recovers. Each hand draws its faults from a bag that holds
//! every kind that was asked for: no kind stays out because of bad luck.
//!
//! Every [`Strike`] says how often it is known to have struck something. One that did not proves
//! nothing.

mod bag;
mod clocks;
mod disks;
mod kind;
mod network;
mod processes;

use std::fmt;
use std::time::{Duration, Instant};

use kvorum_replication::random::Random;

pub(super) use self::clocks::Clocks;
pub(super) use self::disks::Disks;
pub use self::kind::Kind;
pub(super) use self::network::Links;
pub(super) use self::processes::{Processes, check_alive};
use super::clock::Clock;
use super::proxy::Place;
use crate::cluster::Member;

/// The shortest fault that is one.
const SHORTEST: Duration = Duration::from_millis(100);

/// The longest fault: links are given up after 2 s, and votes too, so there are faults on both
/// sides of that.
const LONGEST: Duration = Duration::from_millis(4500);

/// Between looks whether something has run into a strike.
const LOOK: Duration = Duration::from_millis(10);

/// The part of a run that one fault may take at most.
const LONGEST_PART: u32 = 5;

/// Something was broken for a while.
#[derive(Clone, Debug)]
pub struct Strike {
    /// What sort of thing.
    pub kind: Kind,
    /// What was done.
    pub name: String,
    /// To whom; empty means all.
    pub whom: Vec<Member>,
    /// What did not work meanwhile.
    pub hurt: Hurt,
    /// When it began, in nanoseconds of the run.
    pub from: u64,
    /// When it was undone.
    pub to: u64,
    /// How often it is known to have struck.
    pub fired: u64,
    /// What proves that.
    pub evidence: String,
}

/// What does not work while a strike lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hurt {
    /// Whom it struck: nothing is to be expected of these.
    Members,
    /// These ways between processes, and nothing else.
    Ways(Vec<(Place, Place)>),
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |nanos| Duration::from_nanos(nanos).as_secs_f64();
        let (from, to) = (seconds(self.from), seconds(self.to));
        write!(f, "{from:7.3} s to {to:7.3} s  {}: {}", self.name, self.evidence)
    }
}

/// When a hand strikes, and for how long.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) clock: Clock,
    random: Random,
    /// No strike begins after this.
    until: Instant,
    longest: Duration,
    calm: Duration,
}

impl Schedule {
    /// For a run of this length that begins now; each hand has a number of its own.
    pub(super) fn new(clock: Clock, seed: u64, hand: u64, length: Duration) -> Self {
        let longest = LONGEST.min(length / LONGEST_PART).max(SHORTEST * 2);
        let mut random = Random::new(seed);
        let random = Random::new(random.next_u64() ^ hand);
        let until = clock.at(length.saturating_sub(longest / 2));
        Self { clock, random, until, longest, calm: longest / 2 }
    }

    /// Waits until the next strike is due; false if there is none any more.
    async fn next(&mut self) -> bool {
        let calm = self.calm / 4 + self.up_to(self.calm);
        let at = Instant::now() + calm;
        tokio::time::sleep_until(at.min(self.until).into()).await;
        at < self.until
    }

    /// How long a strike lasts: mostly briefly, so that there is time to recover, and sometimes
    /// longer than anybody waits.
    fn length(&mut self) -> Duration {
        let span = self.longest - SHORTEST;
        let most = self.up_to(span);
        SHORTEST + if self.below(3) == 0 { most } else { self.up_to(most) }
    }

    /// Waits as long as a strike lasts; and if nothing has run into it by then, on until something
    /// does, but not for ever: a strike that met nothing proves nothing.
    async fn hold(&mut self, has_struck: impl Fn() -> bool) {
        let length = self.length();
        tokio::time::sleep(length).await;
        let end = Instant::now() + self.longest;
        while !has_struck() && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.below(super::clock::nanos(most).max(1)))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).expect("it is below a length")]
    }

    /// Some of them, at least one, in their order.
    fn some<T: Copy>(&mut self, of: &[T]) -> Vec<T> {
        let must = usize::try_from(self.below(of.len() as u64)).expect("it is below a length");
        let chosen = (0..).zip(of).filter(|(place, _)| *place == must || self.below(3) == 0);
        chosen.map(|(_, one)| *one).collect()
    }
}

/// Names in a row.
fn list(members: &[Member]) -> String {
    members.iter().map(Member::to_string).collect::<Vec<_>>().join(", ")
}
