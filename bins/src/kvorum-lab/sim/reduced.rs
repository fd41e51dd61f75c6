//! Flags that leave out parts of a seed's run. A failing run that was made smaller is printed with
//! them.

use clap::Args;
use kvorum_sim::Reduction;
use kvorum_sim::reduction::{Calm, Numbers};

/// What is left out of a seed's run.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "A smaller run of a seed")]
pub(super) struct Reduced {
    /// Only the faults of these numbers strike, such as 2,5, or none
    #[arg(long, value_name = "LIST", requires = "seed")]
    only_faults: Option<Numbers>,

    /// At most so many clients
    #[arg(long, value_name = "N", requires = "seed")]
    clients: Option<u64>,

    /// At most so many operations of each client while faults strike
    #[arg(long, value_name = "N", requires = "seed")]
    operations: Option<u64>,

    /// These parts of the world behave, such as loss,delay
    #[arg(long, value_name = "LIST", requires = "seed")]
    calm: Option<Calm>,

    /// Everything heals after so many milliseconds at the latest
    #[arg(long, value_name = "MS", requires = "seed")]
    heal_at: Option<u64>,
}

impl Reduced {
    pub(super) fn reduction(&self) -> Reduction {
        Reduction {
            only_faults: self.only_faults.clone(),
            clients: self.clients,
            operations: self.operations,
            calm: self.calm.clone().unwrap_or_default(),
            heal_at: self.heal_at,
        }
    }

    /// Whether nothing is left out.
    pub(super) fn is_nothing(&self) -> bool {
        self.reduction() == Reduction::default()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct CommandLine {
        #[arg(long)]
        seed: u64,
        #[command(flatten)]
        reduced: Reduced,
    }

    #[test]
    fn what_the_simulator_prints_is_understood() {
        for text in [
            "",
            "--only-faults none",
            "--only-faults 2,5 --clients 2 --operations 12 --calm loss,repeat --heal-at 800",
        ] {
            let words = "sim --seed 7".split(' ').chain(text.split_whitespace());
            let parsed = CommandLine::try_parse_from(words).expect(text);
            assert_eq!((parsed.seed, parsed.reduced.reduction().to_string()), (7, text.to_owned()));
            assert_eq!(parsed.reduced.is_nothing(), text.is_empty());
        }
        for text in ["--calm wind", "--only-faults 1,,2", "--clients x"] {
            let words = "sim --seed 7".split(' ').chain(text.split_whitespace());
            assert!(CommandLine::try_parse_from(words).is_err(), "{text}");
        }
    }
}
