//! `scan`.

use std::os::unix::ffi::OsStrExt as _;

use kvorum_replication::Row;
use kvorum_rpc::client::Client;
use serde_json::Map;

use crate::arguments::Scan;
use crate::error::CommandError;
use crate::output::{Format, Output};
use crate::pages::Pages;
use crate::text::{printable, set_field};

/// Prints the rows of a range.
pub(crate) async fn scan(
    client: &Client,
    output: &mut Output,
    arguments: Scan,
) -> Result<(), CommandError> {
    let to = arguments.to.as_ref().map(|to| to.as_bytes());
    let (prefix, from) = (arguments.prefix.as_bytes(), arguments.from.as_bytes());
    let pages = Pages::new(prefix, from, to, arguments.limit);
    let mut pages = pages.read(arguments.reading.read);
    while let Some(rows) = pages.next(client).await? {
        for row in &rows {
            print(output, row, arguments.keys_only)?;
        }
        // Rows on the screen as they arrive, and an early end when nobody reads them any more.
        output.flush()?;
    }
    if pages.was_cut() && output.format == Format::Text && output.is_terminal() {
        output.note("there are more rows than --limit lets through")?;
    }
    Ok(())
}

fn print(output: &mut Output, (key, value): &Row, keys_only: bool) -> Result<(), CommandError> {
    match output.format {
        Format::Text if keys_only => output.line(printable(key)),
        Format::Text => output.line(format!("{}\t{}", printable(key), printable(value))),
        Format::Json => {
            let mut object = Map::new();
            set_field(&mut object, "key", key);
            if !keys_only {
                set_field(&mut object, "value", value);
            }
            output.object(object)
        }
    }
}
