//! The flag by which nodes get a bug on purpose. An ordinary build has neither flag nor bug.

use clap::Args;
use kvorum_sim::Planted;

/// The bug that nodes have, if any.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plant {
    /// Give the nodes this bug; `kvorum-lab planted --list` names them
    #[cfg(feature = "planted-bugs")]
    #[arg(long, value_name = "BUG", value_parser = crate::planted::bug)]
    plant: Option<kvorum_sim::planted::Bug>,
}

impl Plant {
    /// As the simulator wants it.
    pub(crate) fn planted(&self) -> Planted {
        #[cfg(feature = "planted-bugs")]
        if let Some(bug) = self.plant {
            return Planted::of(bug);
        }
        Planted::default()
    }

    /// As the command line wants it, after a space.
    pub(crate) fn flag(&self) -> String {
        #[cfg(feature = "planted-bugs")]
        if let Some(bug) = self.plant {
            return format!(" --plant {}", bug.name());
        }
        String::new()
    }
}
