//! All bugs, hunted one after the other, as a table.

use std::fmt;
use std::io::{self, Write};

use super::hunt::{Found, Hunted, control, hunt};
use super::{Bug, Place};
use crate::threads;

/// Characters of a violation that the table shows: enough to tell one from another.
const WORDS_MAX: usize = 100;

/// How to hunt.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Seeds for each bug, at most.
    pub seeds_max: u64,
    /// Seeds without a bug, which must show nothing.
    pub control: u64,
    /// Threads that run seeds.
    pub threads: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { seeds_max: 2_000, control: 200, threads: threads() }
    }
}

/// What came of one hunt.
#[derive(Clone, Debug)]
pub struct Row {
    /// What is simulated.
    pub place: Place,
    /// For what; none in the control run, which must find nothing.
    pub bug: Option<Bug>,
    /// What came of it.
    pub hunted: Hunted,
}

impl Row {
    /// Hunts for a bug.
    #[must_use]
    pub fn of(bug: Bug, bounds: &Bounds) -> Self {
        let hunted = hunt(bug, bounds.seeds_max, bounds.threads);
        Self { place: bug.place(), bug: Some(bug), hunted }
    }

    /// Hunts where there is no bug, to compare.
    #[must_use]
    pub fn control(place: Place, bounds: &Bounds) -> Self {
        Self { place, bug: None, hunted: control(place, bounds.control, bounds.threads) }
    }

    /// Whether it is as it should be: a bug was found, or without one nothing was.
    #[must_use]
    pub fn is_right(&self) -> bool {
        match self.hunted {
            Hunted::Found(_) => true,
            Hunted::Nothing { .. } => self.bug.is_none(),
            Hunted::Unsound(_) => false,
        }
    }
}

/// As lines of the table.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.bug.map_or("none, to compare", Bug::name);
        let right = if self.is_right() { "ok  " } else { "FAIL" };
        let (seeds, judge, words) = match &self.hunted {
            Hunted::Nothing { seeds } => (*seeds, "nothing", String::new()),
            Hunted::Found(Found { seed, violation }) => {
                (seed + 1, violation.promise.words(), shortened(&violation.what))
            }
            Hunted::Unsound(Found { seed, violation }) => {
                (seed + 1, "BROKEN WITHOUT A BUG ON PURPOSE", shortened(&violation.what))
            }
        };
        write!(f, "{right} {name:31} {:7} {seeds:>5}  {judge}", self.place.name())?;
        if let Some(bug) = self.bug {
            write!(f, "\n       {}", bug.trap())?;
        }
        if words.is_empty() { Ok(()) } else { write!(f, "\n       seen: {words}") }
    }
}

fn shortened(violation: &str) -> String {
    let line = violation.lines().next().unwrap_or_default();
    match line.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line.to_owned(),
    }
}

/// Hunts each of the bugs, after a control run without any, and tells of each as it goes. Whether
/// all was as it should be.
pub fn hunt_all(bugs: &[Bug], bounds: &Bounds, out: &mut dyn Write) -> io::Result<bool> {
    let mut wrong = 0;
    writeln!(out, "     {:31} {:7} {:>5}  broken promise", "bug", "in", "seeds")?;
    let places = [Place::Cluster, Place::Engine].map(|place| (place, None));
    for (place, bug) in places.into_iter().chain(bugs.iter().map(|bug| (bug.place(), Some(*bug)))) {
        let row = match bug {
            Some(bug) => Row::of(bug, bounds),
            None => Row::control(place, bounds),
        };
        wrong += usize::from(!row.is_right());
        writeln!(out, "{row}")?;
    }
    let verdict = match wrong {
        0 => "every bug was found, and nothing without one".to_owned(),
        wrong => format!("{wrong} of these rows are wrong"),
    };
    writeln!(out, "{} bugs: {verdict}", bugs.len())?;
    Ok(wrong == 0)
}
