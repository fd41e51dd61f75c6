//! All bugs, hunted one after the other, as a table.

use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

use super::Bug;
use super::hunt::{Found, hunt};

/// Characters of a violation that the table shows: enough to tell one judge from another.
const WORDS_MAX: usize = 90;

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
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { seeds_max: 2_000, control: 200, threads }
    }
}

/// What came of one hunt.
#[derive(Clone, Debug)]
pub struct Row {
    /// For what; none in the control run, which must find nothing.
    pub bug: Option<Bug>,
    /// What was found.
    pub found: Option<Found>,
    /// How many seeds were to be run at most.
    pub seeds_max: u64,
}

impl Row {
    /// Whether it is as it should be: a bug was found, or without one nothing was.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.bug.is_some() == self.found.is_some()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.bug.map_or("(none)", Bug::name);
        let right = if self.is_right() { "ok  " } else { "FAIL" };
        match &self.found {
            Some(Found { seed, violation }) => {
                let seeds = seed + 1;
                write!(f, "{right} {name:32} {seeds:>5}  {}", shortened(violation))
            }
            None => write!(f, "{right} {name:32} {:>5}  nothing", self.seeds_max),
        }
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
    let began = Instant::now();
    let mut wrong = 0;
    writeln!(out, "     {:32} {:>5}  found by", "bug", "seeds")?;
    for bug in std::iter::once(None).chain(bugs.iter().copied().map(Some)) {
        let seeds_max = if bug.is_some() { bounds.seeds_max } else { bounds.control };
        let row = Row { bug, found: hunt(bug, seeds_max, bounds.threads), seeds_max };
        wrong += usize::from(!row.is_right());
        writeln!(out, "{row}")?;
        if let Some(bug) = bug {
            writeln!(out, "     {:32}        {}", "", bug.trap())?;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let verdict = match wrong {
        0 => "every bug was found, and nothing without one".to_owned(),
        wrong => format!("{wrong} of these are wrong"),
    };
    writeln!(out, "{} bugs in {seconds:.1} s: {verdict}", bugs.len())?;
    Ok(wrong == 0)
}
