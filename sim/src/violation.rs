//! What can be wrong with a run: which promise broke, and how.

use std::fmt;

macro_rules! promises {
    ($($(#[$doc:meta])* $name:ident => $words:literal,)*) => {
        /// A promise that a run can break. Two violations of one promise count as one bug when a
        /// failing run is made smaller.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Promise {
            $($(#[$doc])* $name,)*
        }

        impl Promise {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What it promises.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

promises! {
    /// No process panics.
    NoPanic => "no process panics",
    /// A process stops only for a fault of its disk.
    StaysUp => "a process on a sound disk does not stop",
    /// Damage is named, never served.
    NamesDamage => "damaged files are named",
    /// Nothing durable is forgotten.
    Remembers => "what was durable is never forgotten",
    /// Nothing leaves before what it rests on is durable.
    WaitsForDisk => "nothing leaves before the record that it rests on is durable",
    /// Of a transaction everybody says the same.
    OneDecision => "a transaction has one outcome",
    /// A write of a session is done by one transaction, wherever it was asked for, or by none if it
    /// was refused.
    Once => "a request is done once, wherever and however often it is sent",
    /// A lock is held from before the vote until the outcome.
    HoldsLocks => "what is promised is locked until it is over",
    /// Wait-die: older transactions wait for younger ones, which die.
    WaitsForYounger => "waits go from older to younger transactions, and who dies is younger",
    /// Else it might lose for ever.
    KeepsAge => "who dies keeps its age",
    /// A read is of the moment at which it is answered.
    ReadsTruth => "a read finds what has happened, all of it, and nothing else",
    /// A commit has a place of its own in the serial order.
    OneOrder => "commits are applied in one order, each once",
    /// Consensus: nobody takes for chosen in a slot what is not, or would have another batch there.
    OneChosen => "at most one batch is chosen in a slot",
    /// An acceptor neither promises nor accepts below what it has promised, and tells what it
    /// accepted.
    KeepsPromises => "an acceptor keeps its promises",
    /// A ballot is one proposer's, promised by a majority, with one batch in a slot.
    OneProposal => "a ballot is one proposer's, and proposes one batch in a slot",
    /// A replica holds what the commits say, and nothing else.
    HoldsCommits => "a replica holds what was committed, and nothing else",
    /// A store by itself holds what was written to it.
    HoldsBatches => "a store holds what was written to it, and nothing else",
    /// Who writes need is said by views, one after another, and who is left out shows nothing old.
    OneView => "views follow one another, and whoever counts is asked and told",
    /// A lock belongs to a transaction under way.
    LocksEnd => "no lock outlives its transaction",
    /// Tables stay within their limits.
    Bounded => "tables stay within their limits",
    /// A client is told the truth.
    TellsTruth => "a client is told what happened",
    /// Once healed, all work is done and everything comes to rest.
    ComesToRest => "once everything is healed all work is done",
    /// All copies are the same in the end.
    Converges => "all copies agree",
    /// A transaction happens whole or not at all.
    Atomic => "a transaction happens whole or not at all",
    /// Money is neither made nor lost.
    Conserves => "money is neither made nor lost",
    /// There is one order that explains what clients saw, and respects real time.
    Serializable => "one order explains all that clients saw",
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken: {}\n{}", self.promise.words(), self.what)
    }
}
