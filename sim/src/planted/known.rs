//! Seeds that are known to show bugs which few seeds show, so that who asks again need not search.

use super::Bug;

/// A bug's name, and a seed that has shown it. A change of the protocols or of the simulator moves
/// them; the hunt then searches as for any other bug, which is slower and no less true.
pub const KNOWN_SEEDS: &[(&str, u64)] = &[
    ("forget-locks-at-restart", 35),
    ("read-waits-for-one", 43),
    ("stale-prepare", 17),
    ("abort-without-promise", 22),
    ("check-without-lock", 98),
    ("apply-out-of-order", 6),
    ("retry-is-new", 24),
    ("stale-sequence-is-new", 13),
    ("sessions-not-recovered", 120),
    ("checkpoint-forgets-sessions", 253),
    ("checkpoint-forgets-decisions", 452),
    ("finished-below-before-recovery", 19),
    ("catch-up-over-gap", 24),
    ("snapshot-forgets-outcomes", 94),
    ("serve-outside", 24),
    ("exclude-under-lease", 124),
    ("read-without-lease", 72),
    ("recover-by-old-view", 55),
    ("abort-to-excluded", 29),
    ("promise-never-in-view", 55),
    ("checkpoint-forgets-view", 95),
    ("any-read-waits-once", 29),
    ("any-sessions-not-recovered", 41),
    ("propose-oldest-found", 40),
    ("gap-left-open", 14),
    ("new-members-unasked", 236),
    ("forget-votes-at-restart", 26),
    ("accept-below-promise", 14),
    ("learn-any-vote", 35),
    ("apply-while-installing", 215),
    ("answer-for-another", 188),
    ("read-unconfirmed", 37),
    ("read-by-older-round", 52),
    ("read-before-recovered", 6),
    ("lease-unchecked", 124),
    ("lease-not-honoured", 13),
    ("lease-forgotten-at-restart", 25),
    ("cut-before-checkpoint-durable", 11),
    ("skip-sync-of-full-file", 97),
    ("retry-failed-sync", 321),
    ("take-torn-tail", 97),
    ("leave-torn-tail", 837),
    ("flush-ahead-of-log", 429),
    ("cut-log-before-flush", 11),
    ("cut-one-too-far", 11),
    ("trust-blocks", 7),
];

impl Bug {
    /// A seed that has shown this bug; none if the first few seeds do.
    #[must_use]
    pub fn known_seed(self) -> Option<u64> {
        KNOWN_SEEDS.iter().find(|(name, _)| *name == self.name()).map(|(_, seed)| *seed)
    }
}
