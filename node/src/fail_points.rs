//! Fail points: named moments of a protocol at which a test makes this process die or pause.
//!
//! They are in every build and off unless asked for (see the decision record): what is tested is
//! then the program that people run.

use std::str::FromStr;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::error::NodeError;

/// How long a dying process waits for what it said before to leave it.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

/// What happens at a fail point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process kills itself with SIGKILL.
    Abort,
    /// The process stops itself with SIGSTOP, until somebody sends SIGCONT.
    Pause,
}

/// One armed fail point: `NAME=abort` or `NAME=pause`, and `@N` for the N-th time it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailPoint {
    /// Which.
    pub name: String,
    /// What happens.
    pub action: Action,
    /// At which passing, from 1.
    pub at: u64,
}

impl FromStr for FailPoint {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        let wrong = || {
            NodeError::FailPoint(format!(
                "a fail point reads NAME=abort|pause, or NAME=abort@N for the N-th time, not {text:?}"
            ))
        };
        let (name, action) = text.split_once('=').ok_or_else(wrong)?;
        let (action, at) = match action.split_once('@') {
            Some((action, at)) => (action, at.parse().map_err(|_| wrong())?),
            None => (action, 1),
        };
        let action = match action {
            "abort" => Action::Abort,
            "pause" => Action::Pause,
            _ => return Err(wrong()),
        };
        if at == 0 {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), action, at })
    }
}

/// The fail points of a process, and how often each was passed.
#[derive(Debug, Default)]
pub struct FailPoints {
    armed: Vec<(FailPoint, u64)>,
}

impl FailPoints {
    /// Arms fail points, all of which must be among the `known`.
    pub fn new(armed: Vec<FailPoint>, known: &[&str]) -> Result<Self, NodeError> {
        if let Some(unknown) = armed.iter().find(|point| !known.contains(&point.name.as_str())) {
            return Err(NodeError::FailPoint(format!(
                "there is no fail point {:?} here; there are: {}",
                unknown.name,
                known.join(", ")
            )));
        }
        Ok(Self { armed: armed.into_iter().map(|point| (point, 0)).collect() })
    }

    /// The names that the core has to mark.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.armed.iter().map(|(point, _)| point.name.clone()).collect()
    }

    /// Counts one passing of a point, and says what is to happen now.
    pub(crate) fn pass(&mut self, name: &str) -> Option<Action> {
        let (point, passed) = self.armed.iter_mut().find(|(point, _)| point.name == name)?;
        *passed += 1;
        (*passed == point.at).then_some(point.action)
    }
}

/// Dies, or stops until somebody wakes the process.
pub(crate) fn act(name: &str, action: Action) {
    let signal = match action {
        Action::Abort => Signal::KILL,
        Action::Pause => Signal::STOP,
    };
    eprintln!("fail point {name}: {action:?}");
    // The one thing that can go wrong, a missing process, cannot: it is this one.
    let _ = kill_process(getpid(), signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_fail_points() {
        let point = |name: &str, action, at| FailPoint { name: name.to_owned(), action, at };
        assert_eq!("a-b=abort".parse::<FailPoint>().unwrap(), point("a-b", Action::Abort, 1));
        assert_eq!("x=pause@3".parse::<FailPoint>().unwrap(), point("x", Action::Pause, 3));
        for wrong in ["", "x", "x=", "x=die", "x=abort@", "x=abort@0", "x=abort@two"] {
            assert!(wrong.parse::<FailPoint>().is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn a_point_acts_once_at_its_passing() {
        let armed = vec!["x=abort@2".parse().unwrap()];
        let mut points = FailPoints::new(armed, &["x", "y"]).unwrap();
        let passed: Vec<_> = ["x", "y", "x", "x"].iter().map(|name| points.pass(name)).collect();
        assert_eq!(passed, [None, None, Some(Action::Abort), None]);
    }

    #[test]
    fn unknown_points_are_refused_by_name() {
        let armed = vec!["z=abort".parse().unwrap()];
        let error = FailPoints::new(armed, &["x", "y"]).unwrap_err().to_string();
        assert!(error.contains("\"z\"") && error.contains("x, y"), "{error}");
    }
}
