//! What the shell's `help` says.

use clap::CommandFactory as _;

use crate::arguments::Arguments;
use crate::error::CommandError;
use crate::output::Output;

/// A command of the shell.
pub(crate) struct Topic {
    /// Its first word.
    pub(crate) name: &'static str,
    /// The words that follow.
    pub(crate) words: &'static str,
    /// What it does.
    does: &'static str,
}

const fn topic(name: &'static str, words: &'static str, does: &'static str) -> Topic {
    Topic { name, words, does }
}

/// All commands, in the order in which `help` shows them.
pub(crate) const TOPICS: [Topic; 16] = [
    topic("put", "KEY VALUE", "set the value of a key"),
    topic("get", "KEY... [--read stale]", "print what keys hold, all at one moment"),
    topic("del", "KEY", "remove a key; fine if it is not there"),
    topic("cas", "KEY OLD NEW", "set the value of a key if it is OLD"),
    topic("add", "KEY NUMBER", "add to the whole number that a key holds"),
    topic(
        "scan",
        "[--prefix P] [--from KEY] [--to KEY] [--limit N] [--keys-only] [--read stale]",
        "print rows",
    ),
    topic("begin", "", "open a transaction: writes wait, reads are remembered"),
    topic("check", "KEY absent | present | = VALUE", "the transaction happens only if this holds"),
    topic("commit", "", "have it happen, if what it has read still holds"),
    topic("abort", "", "drop the open transaction"),
    topic("status", "[--counters]", "show each process of the cluster"),
    topic("inspect", "[--prefix P] [--limit N]", "show what each replica holds"),
    topic("help", "[COMMAND]", "show this, or more of one command"),
    topic("exit", "", "leave; so do quit and Ctrl-D"),
    topic("quit", "", ""),
    topic("rollback", "", ""),
];

const QUOTING: &str = "\
Words are split as in a shell: 'single quotes' take everything as it stands, \"double quotes\" and
bare words know \\n \\t \\r \\0 \\xHH \\\\. A word that begins with # begins a comment.";

/// Prints the list of commands, or all about one.
pub(crate) fn print(output: &mut Output, about: Option<&str>) -> Result<(), CommandError> {
    match about {
        None => {
            for Topic { name, words, does } in TOPICS.iter().filter(|topic| !topic.does.is_empty())
            {
                let usage = format!("{name} {words}");
                // A usage too long for its column has the line for itself.
                if usage.len() > 34 {
                    output.line(format!("  {usage}"))?;
                    output.line(format!("  {:34} {does}", ""))?;
                } else {
                    output.line(format!("  {usage:34} {does}"))?;
                }
            }
            output.line(format!("\n{QUOTING}"))
        }
        Some(about) => print_one(output, about),
    }
}

fn print_one(output: &mut Output, about: &str) -> Result<(), CommandError> {
    let found = TOPICS.iter().find(|topic| topic.name == about);
    let Some(Topic { name, words, does }) = found else {
        return Err(CommandError::usage(
            format!("there is no command `{about}`"),
            "`help` lists the commands",
        ));
    };
    match (*name, Arguments::command().find_subcommand_mut(about)) {
        ("get" | "scan" | "status" | "inspect", Some(command)) => {
            let help = command.clone().bin_name(about).render_long_help();
            output.line(help.to_string().trim_end())
        }
        _ => {
            output.line(format!("{name} {words}"))?;
            output.line(format!("  {does}"))?;
            if *name == "put" || *name == "check" {
                output.line(format!("\n{QUOTING}"))?;
            }
            Ok(())
        }
    }
}
