//! What a line of the shell says.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use bytes::Bytes;
use clap::Parser;

use crate::arguments::{Get, Inspect, Scan, Status};
use crate::commands::bytes_of;
use crate::error::CommandError;
use crate::limits::check_key;
use crate::reading::Freshness;
use crate::statement::{Word, words, wrong_count};
use crate::text::quoted;

/// A line, understood.
#[derive(Debug)]
pub(crate) enum Line {
    /// Empty, or a comment.
    Nothing,
    /// `put`, `del`, `check`, `cas` or `add`, as a transaction knows them.
    Statement(Vec<Word>),
    Get(Vec<Bytes>, Freshness),
    Scan(Scan),
    Status(Status),
    Inspect(Inspect),
    Begin,
    Commit,
    Abort,
    Help(Option<String>),
    Exit,
}

/// The commands whose words are those of the command line.
#[derive(Debug, Parser)]
#[command(multicall = true, disable_help_subcommand = true)]
enum WithOptions {
    Get(Get),
    Scan(Scan),
    Status(Status),
    Inspect(Inspect),
}

impl Line {
    /// Reads a line.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let mut words = words(line)?;
        let Some(verb) = words.first() else {
            return Ok(Self::Nothing);
        };
        match (&verb.bytes[..], words.len()) {
            (b"put" | b"del" | b"check" | b"cas" | b"add", _) => Ok(Self::Statement(words)),
            (b"get", 1) => Err(wrong_count("get KEY... [--read stale]", &words, 1).into()),
            (b"get", _) if words.iter().any(|word| word.bytes.starts_with(b"--read")) => {
                with_options(words)
            }
            (b"get", _) => {
                let keys = words.drain(1..).map(|word| Bytes::from(word.bytes)).collect();
                get(keys, Freshness::default())
            }
            (b"scan" | b"status" | b"inspect", _) => with_options(words),
            (b"begin", 1) => Ok(Self::Begin),
            (b"commit", 1) => Ok(Self::Commit),
            (b"abort" | b"rollback", 1) => Ok(Self::Abort),
            (b"exit" | b"quit", 1) => Ok(Self::Exit),
            (b"help", 1) => Ok(Self::Help(None)),
            (b"help", 2) => {
                Ok(Self::Help(Some(String::from_utf8_lossy(&words[1].bytes).into_owned())))
            }
            (b"begin" | b"commit" | b"abort" | b"rollback" | b"exit" | b"quit" | b"help", _) => {
                let verb = String::from_utf8_lossy(&verb.bytes);
                Err(CommandError::usage(format!("too many words behind `{verb}`"), ""))
            }
            (unknown, _) => Err(CommandError::usage(
                format!("there is no command {}", quoted(unknown)),
                "`help` lists the commands",
            )),
        }
    }
}

fn get(keys: Vec<Bytes>, freshness: Freshness) -> Result<Line, CommandError> {
    keys.iter().try_for_each(|key| check_key(key))?;
    Ok(Line::Get(keys, freshness))
}

fn with_options(words: Vec<Word>) -> Result<Line, CommandError> {
    let verb = words.first().map(|verb| String::from_utf8_lossy(&verb.bytes).into_owned());
    let words = words.into_iter().map(|word| OsString::from_vec(word.bytes));
    match WithOptions::try_parse_from(words) {
        Ok(WithOptions::Get(Get { keys, reading })) => {
            get(keys.into_iter().map(bytes_of).collect(), reading.read)
        }
        Ok(WithOptions::Scan(arguments)) => Ok(Line::Scan(arguments)),
        Ok(WithOptions::Status(arguments)) => Ok(Line::Status(arguments)),
        Ok(WithOptions::Inspect(arguments)) => Ok(Line::Inspect(arguments)),
        // `scan --help`
        Err(error) if !error.use_stderr() => Ok(Line::Help(verb)),
        Err(error) => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let what = text.lines().next().unwrap_or(text).to_owned();
            Err(CommandError::usage(
                what,
                "`help scan`, `help status` and `help inspect` tell more",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let cases = [
            ("", "Nothing"),
            ("  # why", "Nothing"),
            ("put a 'b c'", "Statement("),
            ("check a absent", "Statement("),
            ("cas a 1 2", "Statement("),
            ("add a 1", "Statement("),
            ("get a", "Get([b\"a\"], Linearizable)"),
            ("get a b", "Get([b\"a\", b\"b\"], Linearizable)"),
            ("get --read stale 'a b'", "Get([b\"a b\"], Stale)"),
            ("get a --read=stale", "Get([b\"a\"], Stale)"),
            ("get --re", "Get([b\"--re\"], Linearizable)"),
            ("scan --read stale", "Scan("),
            ("scan", "Scan("),
            ("scan --prefix a --limit 3", "Scan("),
            ("inspect --limit 0", "Inspect("),
            ("status --counters", "Status("),
            ("begin", "Begin"),
            ("commit # now", "Commit"),
            ("rollback", "Abort"),
            ("help put", "Help(Some(\"put\"))"),
            ("scan --help", "Help(Some(\"scan\"))"),
            ("quit", "Exit"),
        ];
        for (line, expected) in cases {
            let parsed = format!("{:?}", Line::parse(line.as_bytes()).unwrap());
            assert!(parsed.starts_with(expected), "{line}: {parsed}");
        }
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        let cases = [
            ("get", "column 1: it is `get KEY... [--read stale]`"),
            ("get a --read old", "invalid value 'old' for '--read <FRESHNESS>'"),
            ("scan --limit x", "invalid value 'x' for '--limit <N>'"),
            ("scan --bogus", "unexpected argument '--bogus'"),
            ("commit now", "too many words behind `commit`"),
            ("GET a", "there is no command `GET`"),
            ("get 'a", "column 5: this ' has no '"),
        ];
        for (line, what) in cases {
            let error = Line::parse(line.as_bytes()).unwrap_err();
            assert!(error.what.contains(what), "{line}: {}", error.what);
            assert_eq!(error.code(), 2);
        }
    }
}
