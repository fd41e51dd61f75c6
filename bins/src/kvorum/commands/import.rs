//! `import`.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use bytes::Bytes;
use kvorum_replication::{Row, Transaction, Write};
use kvorum_rpc::client::Client;
use serde_json::{Map, Value as Json};

use super::txn::read_line;
use crate::arguments::Import;
use crate::error::CommandError;
use crate::limits::{check_key, check_value};
use crate::output::{Format, Output};
use crate::text::get_field;

/// Rows and bytes put in one transaction: enough to pay for its syncs, few enough to hold its locks
/// shortly.
const BATCH_ROWS_MAX: usize = 128;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Puts the rows of a file.
pub(crate) async fn import(
    client: &Client,
    output: &mut Output,
    arguments: Import,
) -> Result<(), CommandError> {
    let mut input: Box<dyn BufRead> = match &arguments.file {
        None => Box::new(io::stdin().lock()),
        Some(path) => Box::new(BufReader::new(File::open(path).map_err(|error| {
            CommandError::usage(format!("cannot open {}: {error}", path.display()), "")
        })?)),
    };
    let (mut rows, mut count, mut line_number) = (Vec::new(), 0, 0);
    let mut line = Vec::new();
    loop {
        line_number += 1;
        let more = read_line(&mut input, &mut line, line_number)?;
        if more && !line.trim_ascii().is_empty() {
            let row = parse(&line).map_err(|error| CommandError {
                remedy: so_far(count),
                ..error.on_line(line_number)
            });
            rows.push(row?);
        }
        let bytes: usize = rows.iter().map(|(key, value): &Row| key.len() + value.len()).sum();
        if rows.len() >= BATCH_ROWS_MAX || bytes >= BATCH_BYTES_MAX || !more && !rows.is_empty() {
            let batch = std::mem::take(&mut rows);
            let batch_rows = batch.len();
            put_all(client, batch).await.map_err(|error| CommandError {
                remedy: format!("{}; {}", so_far(count), error.remedy),
                ..error
            })?;
            count += batch_rows;
        }
        if !more {
            break;
        }
    }
    match output.format {
        Format::Text => output.note(&format!("{count} rows put")),
        Format::Json => output.object(Map::from_iter([("imported".to_owned(), Json::from(count))])),
    }
}

fn so_far(count: usize) -> String {
    format!("{count} rows were put before; the import can be run again as a whole")
}

fn parse(line: &[u8]) -> Result<Row, CommandError> {
    let wrong = |what: String| {
        CommandError::usage(format!("not a JSON object with a key and a value: {what}"), "")
    };
    let object: Map<String, Json> =
        serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))?;
    let key = get_field(&object, "key").map_err(wrong)?;
    let value = get_field(&object, "value").map_err(wrong)?;
    check_key(&key)?;
    check_value(&key, &value)?;
    Ok((Bytes::from(key), Bytes::from(value)))
}

async fn put_all(client: &Client, rows: Vec<Row>) -> Result<(), CommandError> {
    let writes = rows.into_iter().map(|(key, value)| Write::Put(key, value)).collect();
    let transaction = Transaction { preconditions: Vec::new(), writes };
    Ok(client.transact(transaction).await?)
}
