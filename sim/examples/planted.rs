//! Hunts bugs that the nodes have on purpose.
//!
//! ```text
//! cargo run -p kvorum-sim --features planted-bugs --example planted
//! cargo run -p kvorum-sim --features planted-bugs --example planted -- --seeds 500 forget-vote-at-restart
//! ```
//!
//! Prints what was found and after how many seeds; ends with 1 if one was not.

use std::process::ExitCode;

use kvorum_sim::planted::{Bounds, Bug, hunt_all};

fn main() -> ExitCode {
    let mut bounds = Bounds::default();
    let mut bugs = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let understood = match argument.as_str() {
            "--seeds" => arguments.next().and_then(|text| text.parse().ok()).map(|seeds| {
                bounds.seeds_max = seeds;
            }),
            name => Bug::by_name(name).map(|bug| bugs.push(bug)),
        };
        if understood.is_none() {
            eprintln!("usage: planted [--seeds N] [NAME]...\n{argument:?} is no bug");
            return ExitCode::from(2);
        }
    }
    if bugs.is_empty() {
        bugs.extend(Bug::all());
    }
    // A process that panics is a violation like others: the table says it, once.
    std::panic::set_hook(Box::new(|_| ()));
    match hunt_all(&bugs, &bounds, &mut std::io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot write: {error}");
            ExitCode::from(4)
        }
    }
}
