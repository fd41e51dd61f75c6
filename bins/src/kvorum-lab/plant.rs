//! The flag by which nodes get a bug on purpose. An ordinary build has the flag and no bug.

use clap::Args;
use kvorum_sim::Planted;
use kvorum_sim::planted::{Bug, Place};

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
    place: Place,
}

impl Plant {
    /// What is simulated to find it.
    pub(crate) fn place(&self) -> Option<Place> {
        self.plant.as_ref().map(|named| named.place)
    }

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
    let place = Bug::by_name(name).map_or(Place::TwoPhase, Bug::place);
    Ok(Named { name: name.to_owned(), planted, place })
}
