//! Many seeds.

use std::ops::ControlFlow;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use kvorum_sim::{Totals, run_seeds, threads};

use super::{Sim, print, smaller, write_history};
use crate::error::{LabError, VIOLATED};
use crate::output::Output;
use crate::quiet::quietly;

const STYLE: &str = "{bar:30} {pos} of {len} seeds, {msg}  {elapsed} gone, {eta} to go";

/// Runs the seeds, and shows the first that breaks a promise as small as it can be made.
pub(super) fn run(output: &mut Output, arguments: &Sim) -> Result<ExitCode, LabError> {
    let seeds = arguments.seeds.clone();
    let threads = arguments.threads.map_or_else(threads, |threads| threads as usize);
    let bar = progress(output, seeds.end - seeds.start);
    let on_progress = |totals: &Totals| {
        bar.set_position(totals.seeds);
        bar.set_message(format!("{} operations", totals.operations()));
        if totals.violations.is_empty() || arguments.keep_going {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    let totals = quietly(|| {
        run_seeds(arguments.simulate(), seeds, threads, &arguments.setup(0), on_progress)
    });
    bar.finish_and_clear();
    let shrunk = match totals.violations.first() {
        None => None,
        Some((seed, _)) => {
            if let Some(path) = &arguments.history {
                let setup = arguments.setup(*seed);
                write_history(path, &quietly(|| (arguments.simulate())(&setup)).history)?;
            }
            smaller(output, arguments, *seed)?
        }
    };
    print::many(output, arguments, &totals, shrunk.as_ref())?;
    Ok(ExitCode::from(if totals.violations.is_empty() { 0 } else { VIOLATED }))
}

fn progress(output: &Output, seeds: u64) -> ProgressBar {
    if !output.is_watched() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(seeds);
    bar.set_style(ProgressStyle::with_template(STYLE).expect("the template is a constant"));
    bar
}
