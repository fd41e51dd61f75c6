//! `export`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kvorum_replication::Row;
use kvorum_rpc::client::Client;
use serde_json::{Map, Value as Json};

use crate::arguments::Export;
use crate::error::CommandError;
use crate::output::Output;
use crate::pages::Pages;
use crate::text::set_field;

/// Writes rows as JSON lines, to a file or to standard output.
pub(crate) async fn export(
    client: &Client,
    output: &mut Output,
    arguments: Export,
) -> Result<(), CommandError> {
    let pages = Pages::new(arguments.prefix.as_bytes(), b"", None, None);
    let mut pages = pages.read(arguments.reading.read);
    let Some(path) = arguments.file else {
        while let Some(rows) = pages.next(client).await? {
            for row in &rows {
                output.object(object(row))?;
            }
            output.flush()?;
        }
        return Ok(());
    };
    let mut count = 0;
    let mut file = BufWriter::new(File::create(&path).map_err(failed(&path))?);
    while let Some(rows) = pages.next(client).await? {
        for row in &rows {
            writeln!(file, "{}", Json::Object(object(row))).map_err(failed(&path))?;
        }
        count += rows.len();
    }
    let file = file.into_inner().map_err(|error| failed(&path)(error.into_error()))?;
    file.sync_all().map_err(failed(&path))?;
    output.note(&format!("{count} rows written to {}", path.display()))
}

fn object((key, value): &Row) -> Map<String, Json> {
    let mut object = Map::new();
    set_field(&mut object, "key", key);
    set_field(&mut object, "value", value);
    object
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> CommandError + '_ {
    move |error| CommandError::io(&format!("cannot write {}", path.display()), &error)
}
