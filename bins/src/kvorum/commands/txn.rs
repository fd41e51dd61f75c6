//! `txn`, and the shell's `commit`.

use std::io::{self, BufRead, IsTerminal as _, Read};

use kvorum_replication::Transaction;
use kvorum_rpc::client::Client;
use serde_json::{Map, Value as Json};

use crate::error::CommandError;
use crate::limits::{KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX, check_statement};
use crate::output::{Format, Output};
use crate::statement::{FORMS, Statement, words};

/// Bytes of a line: a key and a value, each byte of them written as `\xHH`, and the words around.
pub(crate) const LINE_BYTES_MAX: u64 = ((KEY_BYTES_MAX + VALUE_BYTES_MAX) * 4 + 1024) as u64;

/// A transaction as it is read, line by line.
#[derive(Default)]
pub(crate) struct TransactionText {
    transaction: Transaction,
    bytes: usize,
}

impl TransactionText {
    /// Adds a line's statement.
    pub(crate) fn add(&mut self, words: Vec<Vec<u8>>) -> Result<(), CommandError> {
        let statement = Statement::parse(words)?;
        check_statement(&statement)?;
        self.bytes += statement.bytes();
        if self.bytes > TRANSACTION_BYTES_MAX {
            return Err(CommandError::usage(
                format!("here the transaction grows larger than {TRANSACTION_BYTES_MAX} bytes"),
                "make several of it",
            ));
        }
        statement.add_to(&mut self.transaction);
        Ok(())
    }

    /// How many statements it has.
    pub(crate) fn len(&self) -> usize {
        self.transaction.preconditions.len() + self.transaction.writes.len()
    }
}

/// Reads a transaction from standard input.
pub(crate) fn read_transaction(output: &mut Output) -> Result<TransactionText, CommandError> {
    if io::stdin().is_terminal() {
        output.note("One statement a line; Ctrl-D runs them all, Ctrl-C drops them.")?;
    }
    let text = read(io::stdin().lock())?;
    if text.len() == 0 {
        return Err(CommandError::usage(
            "there is no statement on standard input",
            format!("a line is {FORMS}"),
        ));
    }
    Ok(text)
}

/// Runs a transaction, and says `done` when it has happened.
pub(crate) async fn commit(
    client: &Client,
    output: &mut Output,
    text: TransactionText,
    done: &str,
) -> Result<(), CommandError> {
    let transaction = text.transaction;
    let (checks, writes) = (transaction.preconditions.len(), transaction.writes.len());
    client.transact(transaction).await?;
    match output.format {
        Format::Text => output.line(done),
        Format::Json => output.object(Map::from_iter([
            ("committed".to_owned(), Json::from(true)),
            ("checks".to_owned(), Json::from(checks)),
            ("writes".to_owned(), Json::from(writes)),
        ])),
    }
}

fn read(mut input: impl BufRead) -> Result<TransactionText, CommandError> {
    let mut text = TransactionText::default();
    let mut line = Vec::new();
    for number in 1.. {
        if !read_line(&mut input, &mut line, number)? {
            break;
        }
        let add = |text: &mut TransactionText| match words(&line)? {
            words if words.is_empty() => Ok(()),
            words => text.add(words),
        };
        add(&mut text).map_err(|error| error.on_line(number))?;
    }
    Ok(text)
}

/// Reads one line, without its end; false behind the last.
pub(crate) fn read_line(
    input: &mut impl BufRead,
    line: &mut Vec<u8>,
    number: usize,
) -> Result<bool, CommandError> {
    line.clear();
    let read = input
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', line)
        .map_err(|error| CommandError::io("cannot read standard input", &error))?;
    if read as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
        let what = format!("longer than {LINE_BYTES_MAX} bytes");
        return Err(CommandError::usage(what, "").on_line(number));
    }
    if line.ends_with(b"\n") {
        line.pop();
    }
    Ok(read > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_read_in_order() {
        let input = "# greet\nput a 1\n\n  check a absent\nput b 2 # two\ndel c";
        let text = read(input.as_bytes()).unwrap();
        assert_eq!(text.transaction.preconditions.len(), 1);
        let written: Vec<_> =
            text.transaction.writes.iter().map(|write| &write.key()[..]).collect();
        assert_eq!(written, [b"a", b"b", b"c"]);
    }

    #[test]
    fn errors_name_the_line() {
        let cases = [
            ("put a 1\nset b 2", "line 2: unknown statement"),
            ("\n\nput a 'b", "line 3: column 7: this ' has no '"),
        ];
        for (input, what) in cases {
            let error = read(input.as_bytes()).map(|text| text.len()).unwrap_err();
            assert!(error.what.starts_with(what), "{}", error.what);
            assert_eq!(error.code(), 2);
        }
    }

    #[test]
    fn input_without_end_is_refused() {
        let error = read(io::BufReader::new(io::repeat(b'a'))).map(|text| text.len()).unwrap_err();
        assert!(error.what.starts_with("line 1: longer than"), "{}", error.what);
        let endless = io::BufReader::new(io::Cursor::new(
            [&b"put k '"[..], &vec![b'v'; 9 << 20], b"'\n"].concat().repeat(9),
        ));
        let error = read(endless).map(|text| text.len()).unwrap_err();
        assert!(error.what.starts_with("line 3: here the transaction"), "{}", error.what);
    }
}
