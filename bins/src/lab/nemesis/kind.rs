//! The sorts of faults, by the names that the command line has for them.

use std::fmt;
use std::str::FromStr;

/// A sort of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `SIGKILL` of one process, several or all, and a restart after a while.
    Kill,
    /// `SIGSTOP` of one process or several, and `SIGCONT` after a while.
    Pause,
    /// A process dies, or stops, at a named point of the protocol.
    FailPoint,
    /// Processes do not reach each other: one is cut off, halves are, or all but a bridge.
    Partition,
    /// One direction is cut.
    OneWay,
    /// Messages are late, each by another time.
    Delay,
    /// Messages pass at a trickle.
    Slow,
    /// Connections are reset.
    Reset,
    /// Clients do not reach a process.
    Client,
    /// A disk has no room.
    DiskFull,
    /// Clocks jump.
    Clock,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Kill,
        Self::Pause,
        Self::FailPoint,
        Self::Partition,
        Self::OneWay,
        Self::Delay,
        Self::Slow,
        Self::Reset,
        Self::Client,
        Self::DiskFull,
        Self::Clock,
    ];

    /// As the command line calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::FailPoint => "fail-point",
            Self::Partition => "partition",
            Self::OneWay => "one-way",
            Self::Delay => "delay",
            Self::Slow => "slow",
            Self::Reset => "reset",
            Self::Client => "client",
            Self::DiskFull => "disk-full",
            Self::Clock => "clock",
        }
    }

    /// Reads names with commas between them; `all` is all of them.
    ///
    /// # Errors
    /// If a name is none.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        if text == "all" {
            return Ok(Self::ALL.to_vec());
        }
        let mut kinds: Vec<Self> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        kinds.sort_unstable();
        kinds.dedup();
        Ok(kinds)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is none of {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        let kinds = Kind::list("pause,kill,pause");
        assert_eq!(kinds, Ok(vec![Kind::Kill, Kind::Pause]));
        assert_eq!(Kind::list("all").map(|kinds| kinds.len()), Ok(Kind::ALL.len()));
        for wrong in ["", "kill,", "killing", "kill pause"] {
            assert!(Kind::list(wrong).is_err(), "{wrong}");
        }
    }
}
