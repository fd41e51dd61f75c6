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
use crate::text::{printable, set_field};

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

/// Prints a key's value, or what several keys hold at one moment.
pub(crate) async fn get(
    client: &Client,
    output: &mut Output,
    keys: Vec<Bytes>,
    freshness: Freshness,
) -> Result<(), CommandError> {
    if let [key] = &keys[..] {
        let found = freshness.get(client, key.clone()).await?;
        return print_one(output, key, found.as_deref());
    }
    let values = freshness.get_many(client, keys.clone()).await?;
    print_all(output, &keys.into_iter().zip(values).collect::<Vec<_>>())
}

/// Prints the keys that were asked for, with their values; one that is not there is an error.
pub(crate) fn print_all(
    output: &mut Output,
    found: &[(Bytes, Option<Bytes>)],
) -> Result<(), CommandError> {
    if let [(key, value)] = found {
        return print_one(output, key, value.as_deref());
    }
    for (key, value) in found {
        print_found(output, key, value.as_deref())?;
    }
    match found.iter().find(|(_, value)| value.is_none()) {
        Some((missing, _)) => Err(CommandError::not_found(missing)),
        None => Ok(()),
    }
}

fn print_one(output: &mut Output, key: &[u8], value: Option<&[u8]>) -> Result<(), CommandError> {
    let value = value.ok_or_else(|| CommandError::not_found(key))?;
    match output.format {
        Format::Text => output.line(value),
        Format::Json => output.object(found_object(key, Some(value))),
    }
}

/// Prints one of several keys, with its value, if it is there.
pub(crate) fn print_found(
    output: &mut Output,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), CommandError> {
    match (output.format, value) {
        (Format::Text, Some(value)) => {
            output.line(format!("{}\t{}", printable(key), printable(value)))
        }
        (Format::Text, None) => output.line(printable(key)),
        (Format::Json, value) => output.object(found_object(key, value)),
    }
}

/// A key and its value, `null` if it is not there.
pub(crate) fn found_object(key: &[u8], value: Option<&[u8]>) -> Map<String, Json> {
    let mut object = Map::new();
    set_field(&mut object, "key", key);
    match value {
        Some(value) => set_field(&mut object, "value", value),
        None => drop(object.insert("value".to_owned(), Json::Null)),
    }
    object
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
