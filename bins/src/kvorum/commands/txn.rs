//! `txn`, and the transactions of the shell.

use std::io::{self, BufRead, IsTerminal as _, Read};

use bytes::Bytes;
use kvorum_replication::{Key, Precondition, Transaction, Value, Write};
use kvorum_rpc::client::{Client, Tries, Txn};
use serde_json::{Map, Value as Json};

use super::keys::{found_object, print_found};
use crate::conflicts::OnConflict;
use crate::error::CommandError;
use crate::limits::{KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX, check_statement};
use crate::output::{Format, Output};
use crate::statement::{FORMS, Statement, Word, parse_whole_number, words};
use crate::text::quoted;

/// Bytes of a line: a key and two values, each byte of them written as `\xHH`, and the words around.
pub(crate) const LINE_BYTES_MAX: u64 = ((KEY_BYTES_MAX + 2 * VALUE_BYTES_MAX) * 4 + 1024) as u64;

/// What a transaction showed: keys in the order of its statements, with their values.
pub(crate) type Found = Vec<(Key, Option<Value>)>;

/// A transaction as it is read, line by line.
#[derive(Default)]
pub(crate) struct TransactionText {
    statements: Vec<Statement>,
    size: Size,
}

/// How large a transaction has grown.
#[derive(Clone, Copy, Default)]
pub(crate) struct Size {
    bytes: usize,
    checks: usize,
    writes: usize,
    /// Statements that show something.
    shows: usize,
}

impl Size {
    /// Counts one more statement, unless it is too large, alone or with the others.
    pub(crate) fn add(&mut self, statement: &Statement) -> Result<(), CommandError> {
        check_statement(statement)?;
        self.bytes += statement.bytes();
        if self.bytes > TRANSACTION_BYTES_MAX {
            return Err(CommandError::usage(
                format!("here the transaction grows larger than {TRANSACTION_BYTES_MAX} bytes"),
                "make several of it",
            ));
        }
        let (checks, writes, shows) = match statement {
            Statement::Check(_) => (1, 0, 0),
            Statement::Get(_) => (0, 0, 1),
            Statement::Write(_) => (0, 1, 0),
            Statement::CompareAndSet(..) => (1, 1, 0),
            Statement::Add(..) => (0, 1, 1),
        };
        self.checks += checks;
        self.writes += writes;
        self.shows += shows;
        Ok(())
    }

    /// The transaction as JSON, once it has happened.
    fn object(self) -> Map<String, Json> {
        Map::from_iter([
            ("committed".to_owned(), Json::from(true)),
            ("checks".to_owned(), Json::from(self.checks)),
            ("writes".to_owned(), Json::from(self.writes)),
        ])
    }
}

impl TransactionText {
    /// Adds a line's statement.
    pub(crate) fn add(&mut self, words: &[Word]) -> Result<(), CommandError> {
        let statement = Statement::parse(words)?;
        self.size.add(&statement)?;
        self.statements.push(statement);
        Ok(())
    }

    /// How many statements it has.
    pub(crate) fn len(&self) -> usize {
        self.statements.len()
    }

    /// The transaction, if it can be said without reading first.
    fn blind(&self) -> Option<Transaction> {
        let mut transaction = Transaction::default();
        for statement in &self.statements {
            match statement.clone() {
                Statement::Check(precondition) => transaction.preconditions.push(precondition),
                Statement::Write(write) => transaction.writes.push(write),
                Statement::CompareAndSet(key, old, new) => {
                    transaction.preconditions.push(Precondition::Equals(key.clone(), old));
                    transaction.writes.push(Write::Put(key, new));
                }
                Statement::Get(_) | Statement::Add(..) => return None,
            }
        }
        Some(transaction)
    }

    /// Runs it within a transaction that reads. What it shows is read in one go, at one moment.
    async fn run(&self, txn: &mut Txn) -> Result<Found, CommandError> {
        let keys = self.statements.iter().filter_map(|statement| match statement {
            Statement::Get(keys) => Some(&keys[..]),
            Statement::Add(key, _) => Some(std::slice::from_ref(key)),
            Statement::Check(_) | Statement::Write(_) | Statement::CompareAndSet(..) => None,
        });
        txn.get_many(keys.flatten().cloned().collect::<Vec<Bytes>>()).await?;
        let mut found = Found::new();
        for statement in &self.statements {
            found.extend(run(txn, statement.clone()).await?);
        }
        Ok(found)
    }
}

/// Runs one statement within a transaction that reads; says what it shows.
pub(crate) async fn run(txn: &mut Txn, statement: Statement) -> Result<Found, CommandError> {
    match statement {
        Statement::Check(precondition) => txn.require(precondition),
        Statement::Write(Write::Put(key, value)) => txn.put(key, value),
        Statement::Write(Write::Delete(key)) => txn.delete(key),
        Statement::CompareAndSet(key, old, new) => {
            txn.require(Precondition::Equals(key.clone(), old));
            txn.put(key, new);
        }
        Statement::Get(keys) => {
            let values = txn.get_many(keys.iter().cloned()).await?;
            return Ok(keys.into_iter().zip(values).collect());
        }
        Statement::Add(key, number) => {
            let held = txn.get(key.clone()).await?;
            let sum = Bytes::from(add(&key, held.as_deref(), number)?.to_string());
            txn.put(key.clone(), sum.clone());
            return Ok(vec![(key, Some(sum))]);
        }
    }
    Ok(Found::new())
}

fn add(key: &[u8], held: Option<&[u8]>, number: i64) -> Result<i64, CommandError> {
    let held = match held {
        None => 0,
        Some(held) => parse_whole_number(held).ok_or_else(|| {
            let what = format!("key {} holds no whole number: {}", quoted(key), quoted(held));
            CommandError::usage(what, "nothing happened; put a number there first")
        })?,
    };
    held.checked_add(number).ok_or_else(|| {
        let what = format!("the sum for key {} is too large a number", quoted(key));
        CommandError::usage(what, "nothing happened; sums have 64 bits")
    })
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

/// Runs a transaction, shows what it reads, and says `done` when it has happened.
pub(crate) async fn commit(
    client: &Client,
    output: &mut Output,
    text: TransactionText,
    on_conflict: OnConflict,
    done: &str,
) -> Result<(), CommandError> {
    let found = match text.blind() {
        Some(transaction) => {
            client.transact(transaction).await?;
            Found::new()
        }
        None => {
            let tries = match on_conflict {
                OnConflict::Fail => Tries::once(),
                OnConflict::Retry => Tries::default(),
            };
            client.transaction_with(tries, async |txn| text.run(txn).await).await?
        }
    };
    match output.format {
        Format::Text => {
            for (key, value) in &found {
                print_found(output, key, value.as_deref())?;
            }
            output.line(done)
        }
        Format::Json => {
            let mut object = text.size.object();
            if text.size.shows > 0 {
                let reads = found.iter().map(|(key, value)| found_object(key, value.as_deref()));
                object.insert("reads".to_owned(), reads.map(Json::Object).collect());
            }
            output.object(object)
        }
    }
}

/// Has a transaction happen that was made line by line, and says so.
pub(crate) async fn commit_by_hand(
    output: &mut Output,
    txn: Txn,
    size: Size,
) -> Result<(), CommandError> {
    txn.commit().await?;
    match output.format {
        Format::Text => output.line("committed"),
        Format::Json => output.object(size.object()),
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
            words => text.add(&words),
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
        let transaction = read(input.as_bytes()).unwrap().blind().unwrap();
        assert_eq!(transaction.preconditions.len(), 1);
        let written: Vec<_> = transaction.writes.iter().map(|write| &write.key()[..]).collect();
        assert_eq!(written, [b"a", b"b", b"c"]);
    }

    #[test]
    fn who_need_not_read_asks_once() {
        let blind = read("check a present\ncas b 1 2\ndel c".as_bytes()).unwrap();
        let transaction = blind.blind().unwrap();
        assert_eq!((transaction.preconditions.len(), transaction.writes.len()), (2, 2));
        for reads in ["put a 1\nget b", "add a 1"] {
            assert_eq!(read(reads.as_bytes()).unwrap().blind(), None, "{reads}");
        }
    }

    #[test]
    fn sums_are_whole_numbers() {
        assert_eq!(add(b"k", None, 5).ok(), Some(5));
        assert_eq!(add(b"k", Some(b"-7"), 5).ok(), Some(-2));
        for (held, what) in [(&b"x"[..], "no whole number: `x`"), (b"9223372036854775807", "large")]
        {
            let error = add(b"k", Some(held), 1).unwrap_err();
            assert!(error.what.contains(what), "{}", error.what);
            assert_eq!(error.code(), 2);
        }
    }

    #[test]
    fn errors_name_the_line() {
        let cases = [
            ("put a 1\n set b 2", "line 2: column 2: unknown statement"),
            ("put a 1 2", "line 1: column 9: it is `put KEY VALUE`"),
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
