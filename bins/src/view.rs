//! Where a process of two-phase commit stands in views, as its counters tell.

use kvorum_rpc::client::ProcessStatus;

/// What the coordinator says of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Views {
    /// The number of the one in force; 0 if there never was one.
    pub number: u64,
    /// Whether a replica that is silent may be left out.
    pub founded: bool,
    /// Replicas that a write needs.
    pub members: u64,
    /// Replicas that it does not need.
    pub outside: u64,
    /// How often one was left out since the coordinator was started.
    pub excluded: u64,
    /// How often one was let in again since then.
    pub rejoined: u64,
    /// Writes are committed up to this number.
    pub commits: u64,
}

impl Views {
    /// Reads a status; `None` if it is no coordinator that gave it.
    #[must_use]
    pub fn of(status: &ProcessStatus) -> Option<Self> {
        let counter = |name| counter(status, name);
        Some(Self {
            number: counter("view")?,
            founded: counter("view_founded")? > 0,
            members: counter("members")?,
            outside: counter("outside")?,
            excluded: counter("excluded")?,
            rejoined: counter("rejoined")?,
            commits: counter("commits")?,
        })
    }
}

/// What a replica says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The number of the newest view that it knows; 0 if it knows of none.
    pub view: u64,
    /// Whether it takes part in nothing, and catches up.
    pub outside: bool,
    /// Whether it answers fresh reads by itself.
    pub may_read: bool,
    /// It has applied all writes up to this number.
    pub applied: u64,
}

impl Seat {
    /// Reads a status; `None` if it is no replica with a coordinator that gave it.
    #[must_use]
    pub fn of(status: &ProcessStatus) -> Option<Self> {
        let counter = |name| counter(status, name);
        Some(Self {
            view: counter("view")?,
            outside: counter("outside")? > 0,
            may_read: counter("may_read")? > 0,
            applied: counter("applied")?,
        })
    }
}

fn counter(status: &ProcessStatus, name: &str) -> Option<u64> {
    let found = status.counters.iter().find(|(counter, _)| counter == name);
    found.map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(counters: &[(&str, u64)]) -> ProcessStatus {
        let counters = counters.iter().map(|(name, value)| ((*name).to_owned(), *value));
        ProcessStatus { counters: counters.collect(), ..Default::default() }
    }

    #[test]
    fn each_role_is_told_by_its_counters() {
        let coordinator = [
            ("excluded", 2),
            ("rejoined", 1),
            ("view", 7),
            ("view_founded", 1),
            ("members", 2),
            ("outside", 1),
            ("commits", 9),
        ];
        let coordinator = status(&coordinator);
        let views = Views {
            number: 7,
            founded: true,
            members: 2,
            outside: 1,
            excluded: 2,
            rejoined: 1,
            commits: 9,
        };
        assert_eq!((Views::of(&coordinator), Seat::of(&coordinator)), (Some(views), None));
        let replica = status(&[("applied", 5), ("view", 6), ("outside", 1), ("may_read", 0)]);
        let seat = Seat { view: 6, outside: true, may_read: false, applied: 5 };
        assert_eq!((Views::of(&replica), Seat::of(&replica)), (None, Some(seat)));
    }
}
