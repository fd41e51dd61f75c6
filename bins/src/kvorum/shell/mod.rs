//! The shell: commands line by line, from a terminal or from a pipe.

mod command;
mod help;
mod lines;
mod terminal;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use bytes::Bytes;
use kvorum_rpc::client::{Client, Txn};

use crate::arguments::Global;
use crate::commands::{self, Size, TransactionText};
use crate::conflicts::OnConflict;
use crate::connection::connect_to_write;
use crate::error::{CommandError, Kind};
use crate::output::{Format, Output};
use crate::reading::Freshness;
use crate::statement::{Statement, Word};
use command::Line;
use lines::Lines;

/// Talks to the cluster until the input ends.
///
/// The exit code is that of the first command of a pipe that failed; on a terminal it is 0.
pub(crate) async fn shell(
    global: &Global,
    on_conflict: OnConflict,
    output: &mut Output,
) -> Result<ExitCode, CommandError> {
    let client = connect_to_write(global, on_conflict).await?;
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if is_terminal && output.format == Format::Text {
        output.line(format!(
            "Connected to {}. `help` lists the commands, Ctrl-D leaves.",
            client.address()
        ))?;
        output.flush()?;
    }
    let lines = if is_terminal { Lines::of_terminal()? } else { Lines::of_pipe()? };
    let shell = Shell {
        client,
        global,
        on_conflict,
        output,
        is_terminal,
        transaction: None,
        first_error: None,
    };
    shell.run(lines).await
}

/// A transaction between `begin` and `commit`.
struct Open {
    txn: Txn,
    size: Size,
    statements: usize,
    /// A statement of it was wrong and nobody is there to write it again: it must not be sent.
    spoiled_at: Option<usize>,
}

struct Shell<'a> {
    client: Client,
    global: &'a Global,
    on_conflict: OnConflict,
    output: &'a mut Output,
    is_terminal: bool,
    transaction: Option<Open>,
    first_error: Option<ExitCode>,
}

impl Shell<'_> {
    async fn run(mut self, mut lines: Lines) -> Result<ExitCode, CommandError> {
        let mut number = 0;
        while let Some(line) = lines.next(self.prompt()).await? {
            number += 1;
            match self.line(&line, number).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.kind == Kind::OutputClosed => return Err(error),
                Err(error) => self.report(error, number)?,
            }
            self.output.flush()?;
        }
        if self.transaction.take().is_some() && !self.is_terminal {
            let error = CommandError::usage(
                "the input ends inside of a transaction, which was not sent",
                "end it with `commit`",
            );
            self.report(error, number)?;
        }
        Ok(self.first_error.filter(|_| !self.is_terminal).unwrap_or(ExitCode::SUCCESS))
    }

    fn prompt(&self) -> String {
        match &self.transaction {
            None => "kvorum> ".to_owned(),
            Some(open) => format!("kvorum txn {}> ", open.statements + 1),
        }
    }

    /// Shows an error and goes on.
    fn report(&mut self, error: CommandError, number: usize) -> Result<(), CommandError> {
        let error = if self.is_terminal { error } else { error.on_line(number) };
        self.output.flush()?;
        // There is nobody to tell that standard error is gone.
        let _ = writeln!(io::stderr(), "{}", error.render(self.output.format));
        self.first_error.get_or_insert(error.exit_code());
        Ok(())
    }

    /// Runs one line; false if it is the last.
    async fn line(&mut self, line: &[u8], number: usize) -> Result<bool, CommandError> {
        let parsed = Line::parse(line);
        if let (Err(_), Some(open), false) = (&parsed, &mut self.transaction, self.is_terminal) {
            open.spoiled_at.get_or_insert(number);
        }
        let (client, output) = (&self.client, &mut *self.output);
        match parsed? {
            Line::Nothing => Ok(()),
            Line::Exit => return Ok(false),
            Line::Help(topic) => help::print(output, topic.as_deref()),
            Line::Get(keys, freshness) => match &mut self.transaction {
                Some(open) if freshness == Freshness::Linearizable => {
                    get_within(open, output, keys).await
                }
                _ => commands::get(client, output, keys, freshness).await,
            },
            Line::Scan(arguments) => commands::scan(client, output, arguments).await,
            Line::Status(arguments) => {
                commands::status(client, output, self.global, &arguments).await
            }
            Line::Inspect(arguments) => {
                commands::inspect(client, output, self.global, &arguments).await
            }
            Line::Statement(words) => self.statement(words, number).await,
            Line::Begin => self.begin(),
            Line::Commit => self.commit().await,
            Line::Abort => self.abort(),
        }?;
        Ok(true)
    }

    /// Adds a statement to the open transaction, or runs it as one of its own.
    async fn statement(&mut self, words: Vec<Word>, number: usize) -> Result<(), CommandError> {
        let Some(open) = &mut self.transaction else {
            if words.first().is_some_and(|verb| verb.bytes == b"check") {
                return Err(CommandError::usage(
                    "a check belongs to a transaction",
                    "`begin` opens one, `commit` runs it",
                ));
            }
            let mut text = TransactionText::default();
            text.add(&words)?;
            let (client, output) = (&self.client, &mut *self.output);
            return commands::commit(client, output, text, self.on_conflict, "ok").await;
        };
        let added = add(open, self.output, &words).await;
        if added.is_err() && !self.is_terminal {
            open.spoiled_at.get_or_insert(number);
        }
        added
    }

    fn begin(&mut self) -> Result<(), CommandError> {
        if self.transaction.is_some() {
            return Err(CommandError::usage(
                "a transaction is open already",
                "`commit` runs it, `abort` drops it",
            ));
        }
        self.transaction = Some(Open {
            txn: self.client.begin(),
            size: Size::default(),
            statements: 0,
            spoiled_at: None,
        });
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), CommandError> {
        let open = self.transaction.take().ok_or_else(no_transaction)?;
        let Open { txn, size, statements, spoiled_at } = open;
        if let Some(line) = spoiled_at {
            return Err(CommandError::usage(
                format!("line {line} was wrong, so the transaction was not sent"),
                "",
            ));
        }
        if statements == 0 {
            return Err(CommandError::usage(
                "the transaction has no statement, so it was not sent",
                format!("write {} before `commit`", crate::statement::FORMS),
            ));
        }
        commands::commit_by_hand(self.output, txn, size).await
    }

    fn abort(&mut self) -> Result<(), CommandError> {
        let open = self.transaction.take().ok_or_else(no_transaction)?;
        if self.is_terminal {
            self.output
                .line(format!("{} statements dropped; nothing happened", open.statements))?;
        }
        Ok(())
    }
}

/// Adds a statement to an open transaction, and shows what it shows.
async fn add(open: &mut Open, output: &mut Output, words: &[Word]) -> Result<(), CommandError> {
    let statement = Statement::parse(words)?;
    open.size.add(&statement)?;
    for (key, value) in commands::run(&mut open.txn, statement).await? {
        commands::print_found(output, &key, value.as_deref())?;
    }
    open.statements += 1;
    Ok(())
}

/// Shows what keys hold, for the open transaction: it happens only if they still do.
async fn get_within(
    open: &mut Open,
    output: &mut Output,
    keys: Vec<Bytes>,
) -> Result<(), CommandError> {
    let statement = Statement::Get(keys);
    open.size.add(&statement)?;
    let found = commands::run(&mut open.txn, statement).await?;
    open.statements += 1;
    commands::print_all(output, &found)
}

fn no_transaction() -> CommandError {
    CommandError::usage("no transaction is open", "`begin` opens one")
}
