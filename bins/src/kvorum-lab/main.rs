//! The lab: clusters are simulated, real ones broken, and histories judged. `kvorum-lab --help` is
//! its manual.

mod arguments;
mod check;
mod error;
mod output;
mod plant;
#[cfg(feature = "planted-bugs")]
mod planted;
mod quiet;
mod run;
mod sim;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command};
use error::LabError;
use output::{Format, Output};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let Arguments { global, command } = arguments;
    let mut output = Output::new(global.output);
    let result = match command {
        Command::Serve(command) => return kvorum::server::run(&command),
        Command::Sim(arguments) => sim::sim(&mut output, &arguments),
        Command::Run(arguments) => run::run(&mut output, &arguments),
        Command::Check(arguments) => check::check(&mut output, &arguments),
        #[cfg(feature = "planted-bugs")]
        Command::Planted(arguments) => planted::planted(&mut output, &arguments),
    };
    match result.and_then(|code| output.flush().map(|()| code)) {
        Ok(code) => code,
        Err(error) => report(&error, output.format),
    }
}

/// Shows what is wrong with the command line, or the help that was asked for.
fn refuse(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os()
        .zip(std::env::args_os().skip(1))
        .any(|(option, value)| option == "--output" && value == "json" || value == "--output=json");
    if !error.use_stderr() || !wants_json {
        // There is nobody to tell that the terminal is gone.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let text = error.render().to_string();
    let text = text.trim_end().strip_prefix("error: ").unwrap_or(&text);
    report(&LabError::usage(text, ""), Format::Json)
}

fn report(error: &LabError, format: Format) -> ExitCode {
    if *error != LabError::OutputClosed {
        // There is nobody to tell that standard error is gone.
        let _ = writeln!(io::stderr(), "{}", error.render(format));
    }
    error.exit_code()
}
