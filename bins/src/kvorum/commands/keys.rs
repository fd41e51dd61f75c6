//! `put`, `get` and `del`.

use std::ffi::OsString;
use std::io::{self, Read};

use bytes::Bytes;
use kvorum_rpc::client::Client;
use serde_json::{Map, Value as Json};

use super::bytes_of;
use crate::error::CommandError;
use crate::limits::{VALUE_BYTES_MAX, check_value, value_too_large};
use crate::output::{Format, Output};
use crate::reading::Freshness;
use crate::text::set_field;

/// Sets a key's value.
pub(crate) async fn put(
    client: &Client,
    output: &mut Output,
    key: Bytes,
    value: Bytes,
) -> Result<(), CommandError> {
    check_value(&key, &value)?;
    client.put(key, value).await?;
    committed(output)
}

/// Prints a key's value.
pub(crate) async fn get(
    client: &Client,
    output: &mut Output,
    key: Bytes,
    freshness: Freshness,
) -> Result<(), CommandError> {
    let found = freshness.get(client, key.clone()).await?;
    let value = found.ok_or_else(|| CommandError::not_found(&key))?;
    match output.format {
        Format::Text => output.line(&value),
        Format::Json => {
            let mut object = Map::new();
            set_field(&mut object, "key", &key);
            set_field(&mut object, "value", &value);
            output.object(object)
        }
    }
}

/// Removes a key.
pub(crate) async fn del(
    client: &Client,
    output: &mut Output,
    key: Bytes,
) -> Result<(), CommandError> {
    client.delete(key).await?;
    committed(output)
}

/// A `put`'s value: the argument itself, or for `-` everything on standard input.
pub(crate) fn value_of(key: &[u8], argument: OsString) -> Result<Bytes, CommandError> {
    if argument != "-" {
        return Ok(bytes_of(argument));
    }
    let mut value = Vec::new();
    let one_too_many = VALUE_BYTES_MAX as u64 + 1;
    io::stdin()
        .lock()
        .take(one_too_many)
        .read_to_end(&mut value)
        .map_err(|error| CommandError::io("cannot read the value from standard input", &error))?;
    if value.len() as u64 == one_too_many {
        return Err(value_too_large(key, "on standard input has more bytes than a value may"));
    }
    Ok(Bytes::from(value))
}

fn committed(output: &mut Output) -> Result<(), CommandError> {
    match output.format {
        Format::Text => Ok(()),
        Format::Json => output.object(Map::from_iter([("committed".to_owned(), Json::from(true))])),
    }
}
