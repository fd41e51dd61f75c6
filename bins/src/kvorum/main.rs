//! The client: a command a call, or a shell. `kvorum --help` is its manual.

mod arguments;
mod bench;
mod commands;
mod conflicts;
mod connection;
mod demo;
mod error;
mod fresh;
mod limits;
mod members;
mod output;
mod pages;
mod reading;
mod shell;
mod statement;
mod text;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Parser as _;
use tokio::task::LocalSet;

use arguments::{Admin, Arguments, Command, Global};
use commands::bytes_of;
use conflicts::OnConflict;
use connection::{connect, connect_to_write};
use error::{CommandError, Kind};
use limits::check_key;
use output::{Format, Output};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let Arguments { global, command } = arguments;
    if let Command::Serve(command) = command {
        return kvorum::server::run(&command);
    }
    let format = global.output;
    match run(&global, command) {
        Ok(code) => code,
        Err(error) => report(&error, format),
    }
}

fn run(global: &Global, command: Command) -> Result<ExitCode, CommandError> {
    let mut output = Output::new(global.output);
    let code = match command {
        // It has threads and runtimes of its own.
        Command::Bench(arguments) => {
            bench::bench(global, &mut output, arguments).map(|()| ExitCode::SUCCESS)?
        }
        // It talks to nobody.
        Command::Store(command) => {
            commands::store(&mut output, &command).map(|()| ExitCode::SUCCESS)?
        }
        command => run_in_runtime(global, command, &mut output)?,
    };
    output.flush()?;
    Ok(code)
}

fn run_in_runtime(
    global: &Global,
    command: Command,
    output: &mut Output,
) -> Result<ExitCode, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::io("cannot start the runtime", &error))?;
    LocalSet::new().block_on(&runtime, dispatch(global, command, output))
}

async fn dispatch(
    global: &Global,
    command: Command,
    output: &mut Output,
) -> Result<ExitCode, CommandError> {
    match command {
        Command::Put(arguments) => {
            let key = key_of(arguments.key)?;
            let value = commands::value_of(&key, arguments.value)?;
            let client = connect_to_write(global, arguments.conflicts.on_conflict).await?;
            commands::put(&client, output, key, value).await
        }
        Command::Get(arguments) => {
            let keys = arguments.keys.into_iter().map(key_of).collect::<Result<_, _>>()?;
            commands::get(&connect(global).await?, output, keys, arguments.reading.read).await
        }
        Command::Del(arguments) => {
            let key = key_of(arguments.key)?;
            let client = connect_to_write(global, arguments.conflicts.on_conflict).await?;
            commands::del(&client, output, key).await
        }
        Command::Scan(arguments) => {
            commands::scan(&connect(global).await?, output, arguments).await
        }
        Command::Txn(arguments) => {
            let text = commands::read_transaction(output)?;
            let on_conflict = arguments.conflicts.on_conflict;
            let client = connect_to_write(global, on_conflict).await?;
            commands::commit(&client, output, text, on_conflict, "committed").await
        }
        Command::Shell(arguments) => {
            return shell::shell(global, arguments.conflicts.on_conflict, output).await;
        }
        Command::Status(arguments) => {
            commands::status(&connect(global).await?, output, global, &arguments).await
        }
        Command::Inspect(arguments) => {
            commands::inspect(&connect(global).await?, output, global, &arguments).await
        }
        Command::Export(arguments) => {
            commands::export(&connect(global).await?, output, arguments).await
        }
        Command::Admin(Admin::Replica(change)) => {
            commands::change_replicas(&connect(global).await?, output, global, &change).await
        }
        Command::Import(arguments) => {
            // Of two who put the same rows, each has its turn.
            let client = connect_to_write(global, OnConflict::Retry).await?;
            commands::import(&client, output, arguments).await
        }
        Command::Demo(arguments) => return demo::demo(global, output, arguments).await,
        Command::Serve(_) | Command::Bench(_) | Command::Store(_) => {
            unreachable!("they run without the client's runtime")
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// An argument that is a key: refused before anybody is asked if it cannot be one.
fn key_of(argument: OsString) -> Result<Bytes, CommandError> {
    let key = bytes_of(argument);
    check_key(&key)?;
    Ok(key)
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
    report(&CommandError::usage(text, ""), Format::Json)
}

fn report(error: &CommandError, format: Format) -> ExitCode {
    if error.kind != Kind::OutputClosed {
        // There is nobody to tell that standard error is gone.
        let _ = writeln!(io::stderr(), "{}", error.render(format));
    }
    error.exit_code()
}
