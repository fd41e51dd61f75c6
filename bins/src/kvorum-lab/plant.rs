//! The flag by which nodes get a bug on purpose. An ordinary build has the flag and no bug.

use clap::Args;
use kvorum_sim::Planted;

/// The bug that nodes have, if any.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plant {
    /// Give the nodes this bug on purpose; `kvorum-lab planted --list` names them
    #[arg(long, value_name = "BUG", value_parser = named, hide = !cfg!(feature = "planted-bugs"))]
    plant: Option<Named>,
}

#[derive(Clone, Debug)]
struct Named {
    name: String,
    planted: Planted,
}

impl Plant {
    /// As the simulator wants it.
    pub(crate) fn planted(&self) -> Planted {
        self.plant.as_ref().map(|named| named.planted).unwrap_or_default()
    }

    /// As the command line wants it, after a space.
    pub(crate) fn flag(&self) -> String {
        self.plant.as_ref().map(|named| format!(" --plant {}", named.name)).unwrap_or_default()
    }
}

fn named(name: &str) -> Result<Named, String> {
    let planted = Planted::named(name)?;
    Ok(Named { name: name.to_owned(), planted })
}
