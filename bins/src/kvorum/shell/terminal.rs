//! The terminal: line editing, history, completion and hints.

use std::env;
use std::fs;
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Context, Editor, Helper, Validator};

use super::help::TOPICS;
use crate::error::CommandError;

/// Lines that the history file keeps.
const HISTORY_LINES_MAX: usize = 1000;

/// A person's terminal.
pub(crate) struct Terminal {
    editor: Editor<Words, DefaultHistory>,
    /// Where the history lives; without a home directory it is not kept.
    history: Option<PathBuf>,
}

impl Terminal {
    /// Takes the terminal, and what was typed in earlier sessions.
    pub(crate) fn new() -> Result<Self, CommandError> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .history_ignore_space(true)
            .max_history_size(HISTORY_LINES_MAX)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(failed)?
            .build();
        let mut editor = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Words));
        let history = history_file();
        if let Some(path) = &history {
            // The first session has none yet.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, history })
    }

    /// Reads a line; nothing at the end. Ctrl-C drops what was typed.
    pub(crate) fn read(&mut self, prompt: &str) -> Result<Option<Vec<u8>>, CommandError> {
        loop {
            match self.editor.readline(prompt) {
                Ok(line) => {
                    self.remember(&line);
                    return Ok(Some(line.into_bytes()));
                }
                Err(ReadlineError::Eof) => return Ok(None),
                Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn remember(&mut self, line: &str) {
        let added = self.editor.add_history_entry(line).unwrap_or(false);
        if let (true, Some(path)) = (added, &self.history) {
            // A history that cannot be kept is no reason to stop the shell.
            let _ = self.editor.append_history(path);
        }
    }
}

fn failed(error: ReadlineError) -> CommandError {
    let error = match error {
        ReadlineError::Io(error) => error,
        other => std::io::Error::other(other),
    };
    CommandError::io("cannot read from the terminal", &error)
}

/// `kvorum/history` in the state directory of the XDG base directory specification.
fn history_file() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let dir = state
        .or_else(|| Some(env::home_dir()?.join(".local/state")))
        .map(|state| state.join("kvorum"))?;
    fs::create_dir_all(&dir).ok()?;
    Some(dir.join("history"))
}

/// Completes and hints at the words of commands.
#[derive(Helper, Validator)]
struct Words;

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(&line[..cursor]))
    }
}

impl Hinter for Words {
    type Hint = String;

    fn hint(&self, line: &str, cursor: usize, _: &Context<'_>) -> Option<String> {
        (cursor == line.len()).then(|| hint(line)).flatten()
    }
}

impl Highlighter for Words {
    fn highlight_hint<'h>(&self, hint: &'h str) -> std::borrow::Cow<'h, str> {
        // Faint, so that it is not taken for typed text.
        format!("\x1b[2m{hint}\x1b[0m").into()
    }
}

/// Where the word under the cursor starts, and what it may become.
fn complete(typed: &str) -> (usize, Vec<String>) {
    let start = typed.rfind(' ').map_or(0, |space| space + 1);
    let (before, word) = typed.split_at(start);
    let before: Vec<&str> = before.split_whitespace().collect();
    let commands = || TOPICS.iter().map(|topic| topic.name);
    let candidates: Vec<&str> = match &before[..] {
        [] | ["help"] => commands().collect(),
        ["check", _] => vec!["absent", "present", "="],
        ["get", _] => vec!["--read stale"],
        ["scan", ..] => {
            vec!["--prefix", "--from", "--to", "--limit", "--keys-only", "--read stale"]
        }
        ["inspect", ..] => vec!["--prefix", "--limit"],
        ["status"] => vec!["--counters"],
        _ => Vec::new(),
    };
    let matching = candidates.into_iter().filter(|candidate| candidate.starts_with(word));
    (start, matching.map(|candidate| format!("{candidate} ")).collect())
}

/// The words that a command still wants, once its name stands.
fn hint(typed: &str) -> Option<String> {
    let name = typed.trim_end();
    let topic = TOPICS.iter().find(|topic| topic.name == name && !topic.words.is_empty())?;
    let space = if typed.ends_with(' ') { "" } else { " " };
    Some(format!("{space}{}", topic.words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_complete() {
        let cases: &[(&str, usize, &[&str])] = &[
            ("p", 0, &["put "]),
            ("a", 0, &["add ", "abort "]),
            ("co", 0, &["commit "]),
            ("help in", 5, &["inspect "]),
            ("check k ", 8, &["absent ", "present ", "= "]),
            ("check k pr", 8, &["present "]),
            ("scan --p", 5, &["--prefix "]),
            ("put a", 4, &[]),
            ("gr\u{fc}n \u{fc}", 6, &[]),
        ];
        for (typed, start, expected) in cases {
            let expected = expected.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(complete(typed), (*start, expected), "{typed}");
        }
    }

    #[test]
    fn commands_hint_at_their_words() {
        assert_eq!(hint("put"), Some(" KEY VALUE".to_owned()));
        assert_eq!(hint("put "), Some("KEY VALUE".to_owned()));
        assert_eq!(hint("put a"), None);
        assert_eq!(hint("commit"), None);
        assert_eq!(hint(""), None);
    }
}
