//! What is left out of a run: the plan of a seed, made smaller.
//!
//! A seed decides a plan; a reduction takes things away from it and changes nothing else. Written
//! as flags of the command line it is all that somebody else needs to repeat a run.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What is left out of the plan of a seed. By default nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reduction {
    /// Only the faults of these numbers strike; none stands for all of them.
    pub only_faults: Option<Numbers>,
    /// At most so many clients.
    pub clients: Option<u64>,
    /// At most so many operations of each client while faults strike.
    pub operations: Option<u64>,
    /// These parts of the world behave.
    pub calm: Calm,
    /// Everything heals after so many milliseconds at the latest.
    pub heal_at: Option<u64>,
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calm = (!self.calm.0.is_empty()).then_some(&self.calm);
        let flags: [(&str, Option<&dyn fmt::Display>); 5] = [
            (ONLY_FAULTS, self.only_faults.as_ref().map(|it| it as _)),
            (CLIENTS, self.clients.as_ref().map(|it| it as _)),
            (OPERATIONS, self.operations.as_ref().map(|it| it as _)),
            (CALM, calm.map(|it| it as _)),
            (HEAL_AT, self.heal_at.as_ref().map(|it| it as _)),
        ];
        let given = flags.iter().filter_map(|(name, value)| Some((name, (*value)?)));
        for (index, (name, value)) in given.enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{name} {value}")?;
        }
        Ok(())
    }
}

const ONLY_FAULTS: &str = "--only-faults";
const CLIENTS: &str = "--clients";
const OPERATIONS: &str = "--operations";
const CALM: &str = "--calm";
const HEAL_AT: &str = "--heal-at";

/// Reads what [`Reduction`] shows: flags with their values.
impl FromStr for Reduction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut reduction = Self::default();
        let mut words = text.split_whitespace();
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("{flag} lacks its value"))?;
            match flag {
                ONLY_FAULTS => reduction.only_faults = Some(value.parse()?),
                CLIENTS => reduction.clients = Some(number(value)?),
                OPERATIONS => reduction.operations = Some(number(value)?),
                CALM => reduction.calm = value.parse()?,
                HEAL_AT => reduction.heal_at = Some(number(value)?),
                other => return Err(format!("{other:?} is no reduction")),
            }
        }
        Ok(reduction)
    }
}

fn number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

/// Numbers of faults of the plan: `2,5`, or `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(pub BTreeSet<u32>);

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.0.iter())
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == NOTHING {
            return Ok(Self::default());
        }
        text.split(',').map(number).collect::<Result<_, _>>().map(Self)
    }
}

const NOTHING: &str = "none";

fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl Iterator<Item = T>,
) -> fmt::Result {
    let mut any = false;
    for item in items {
        let comma = if any { "," } else { "" };
        write!(f, "{comma}{item}")?;
        any = true;
    }
    if any { Ok(()) } else { f.write_str(NOTHING) }
}

macro_rules! knobs {
    ($($(#[$doc:meta])* $name:ident => $word:literal,)*) => {
        /// A part of the world that a seed may make bad without a plan for when.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Knob {
            $($(#[$doc])* $name,)*
        }

        impl Knob {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As flags name it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

knobs! {
    /// No message between nodes is lost.
    Loss => "loss",
    /// None arrives twice.
    Repeat => "repeat",
    /// None overtakes another.
    Reorder => "reorder",
    /// None takes far longer than others.
    Delay => "delay",
    /// The network is fast.
    Latency => "latency",
    /// No request of a client and no answer is lost.
    RequestLoss => "request-loss",
    /// No request arrives twice.
    RequestRepeat => "request-repeat",
    /// Disks are fast, and nothing is written before its sync.
    Disk => "disk",
    /// All clocks run alike.
    Clocks => "clocks",
    /// Who loses a link always notices.
    Unnoticed => "unnoticed",
}

/// Parts of the world that behave: `loss,repeat`, or `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calm(pub BTreeSet<Knob>);

impl Calm {
    /// Whether this part behaves.
    #[must_use]
    pub fn has(&self, knob: Knob) -> bool {
        self.0.contains(&knob)
    }
}

impl fmt::Display for Calm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.0.iter().map(|knob| knob.name()))
    }
}

impl FromStr for Calm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == NOTHING {
            return Ok(Self::default());
        }
        let knob = |word: &str| {
            let known = Knob::ALL.iter().find(|knob| knob.name() == word);
            known.copied().ok_or_else(|| format!("{word:?} is not a part that can be calm"))
        };
        text.split(',').map(knob).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_understood() {
        let texts = [
            "",
            "--only-faults none",
            "--only-faults 2,5 --clients 2 --operations 12 --calm loss,repeat --heal-at 800",
        ];
        for text in texts {
            let reduction: Reduction = text.parse().expect(text);
            assert_eq!(reduction.to_string(), text);
        }
        for text in ["--clients", "--clients x", "--calm wind", "--only-faults 1,,2", "--speed 3"] {
            assert!(text.parse::<Reduction>().is_err(), "{text}");
        }
    }
}
