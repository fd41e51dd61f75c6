//! Where the shell's lines come from.
//!
//! Reading blocks, and the connection must go on answering meanwhile: so a thread of its own reads
//! a line whenever it is asked for one.

use std::io::{self, BufReader};
use std::sync::mpsc;
use std::thread;

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::terminal::Terminal;
use crate::commands::read_line;
use crate::error::CommandError;

/// A line, nothing behind the last one, or why none could be read.
type Read = Result<Option<Vec<u8>>, CommandError>;

/// Lines, one at a time.
pub(crate) struct Lines {
    prompts: mpsc::Sender<String>,
    lines: Receiver<Read>,
}

impl Lines {
    /// Lines that a person types.
    pub(crate) fn of_terminal() -> Result<Self, CommandError> {
        let mut terminal = Terminal::new()?;
        Self::start(move |prompt| terminal.read(prompt))
    }

    /// Lines of standard input.
    pub(crate) fn of_pipe() -> Result<Self, CommandError> {
        let mut input = BufReader::new(io::stdin());
        let mut number = 0;
        Self::start(move |_| {
            number += 1;
            let mut line = Vec::new();
            Ok(read_line(&mut input, &mut line, number)?.then_some(line))
        })
    }

    /// The next line.
    pub(crate) async fn next(&mut self, prompt: String) -> Read {
        if self.prompts.send(prompt).is_err() {
            return Ok(None);
        }
        self.lines.recv().await.unwrap_or(Ok(None))
    }

    fn start(mut read: impl FnMut(&str) -> Read + Send + 'static) -> Result<Self, CommandError> {
        let (prompts, asked) = mpsc::channel::<String>();
        let (answer, lines): (Sender<Read>, _) = channel(1);
        let run = move || {
            for prompt in asked {
                if answer.blocking_send(read(&prompt)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("lines".to_owned())
            .spawn(run)
            .map_err(|error| CommandError::io("cannot start a thread", &error))?;
        Ok(Self { prompts, lines })
    }
}
