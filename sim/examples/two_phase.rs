//! Simulates clusters of two-phase commit.
//!
//! ```text
//! cargo run -p kvorum-sim --example two_phase -- --seeds 0..200
//! cargo run -p kvorum-sim --example two_phase -- --seed 7 --trace
//! ```
//!
//! Prints the seeds run, the faults that struck and the verdict; ends with 1 on a violation.

use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use kvorum_checker::write_line;
use kvorum_sim::{Activity, Counts, Planted, Setup, two_phase};

fn main() -> ExitCode {
    let mut seeds = 0..100;
    let mut planted = Planted::default();
    let (mut traced, mut histories, mut keeps_going) = (false, false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let understood = match argument.as_str() {
            "--trace" => {
                traced = true;
                true
            }
            "--planted" => arguments.next().is_some_and(|name| match Planted::named(&name) {
                Ok(named) => {
                    planted = named;
                    true
                }
                Err(why) => {
                    eprintln!("{why}");
                    false
                }
            }),
            "--history" => {
                histories = true;
                true
            }
            "--keep-going" => {
                keeps_going = true;
                true
            }
            "--seed" => arguments.next().and_then(|text| text.parse().ok()).is_some_and(|seed| {
                seeds = seed..seed + 1;
                true
            }),
            "--seeds" => arguments.next().and_then(|text| range(&text)).is_some_and(|range| {
                seeds = range;
                true
            }),
            _ => false,
        };
        if !understood {
            eprintln!(
                "usage: two_phase [--seed N | --seeds A..B] [--trace] [--history] [--keep-going] [--planted BUG]"
            );
            return ExitCode::from(2);
        }
    }
    simulate(seeds, Setup { traced, planted, ..Setup::new(0) }, histories, keeps_going)
}

fn range(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..")?;
    Some(from.parse().ok()?..to.parse().ok()?)
}

fn simulate(seeds: Range<u64>, setup: Setup, histories: bool, keeps_going: bool) -> ExitCode {
    let started = Instant::now();
    let mut faults = Counts::default();
    let mut activity = Activity::new();
    let (mut run, mut broken, mut operations, mut nanoseconds) = (0u64, Vec::new(), 0, 0u64);
    for seed in seeds {
        let result = two_phase::simulate(&Setup { seed, ..setup.clone() });
        run += 1;
        operations += result.history.len();
        nanoseconds += result.nanoseconds;
        faults.add(&result.faults);
        for (name, count) in result.activity {
            *activity.entry(name).or_default() += count;
        }
        if let Some(trace) = result.trace {
            // Whoever reads only the beginning closes the pipe.
            let _ = std::io::stdout().write_all(trace.as_bytes());
        }
        if histories {
            for record in &result.history {
                let _ = write_line(std::io::stdout(), record);
            }
        }
        if let Some(violation) = result.violation {
            println!("seed {seed}: {violation}\n");
            broken.push(seed);
            if !keeps_going {
                break;
            }
        }
    }
    println!("faults that struck:\n{faults}");
    println!("what the nodes did:");
    for (name, count) in &activity {
        println!("{count:>10}  {name}");
    }
    println!();
    let seconds = started.elapsed().as_secs_f64();
    let hours = std::time::Duration::from_nanos(nanoseconds).as_secs_f64() / 3600.0;
    println!("{run} seeds, {operations} operations, {hours:.2} simulated hours in {seconds:.1} s");
    if broken.is_empty() {
        println!("verdict: no violation");
        return ExitCode::SUCCESS;
    }
    println!("verdict: violations with seeds {broken:?}");
    println!("again: cargo run -p kvorum-sim --example two_phase -- --seed {} --trace", broken[0]);
    ExitCode::FAILURE
}
