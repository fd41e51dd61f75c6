//! Between our types and Cap'n Proto's, one file for each schema. What comes from outside is
//! checked here: whatever the bytes, the answer is a value or an error, never a panic, and no list
//! grows beyond a limit with a name.

pub(crate) mod admin;
pub(crate) mod client;
mod copy;
pub(crate) mod peer;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use capnp::Error;

/// The longest key.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// The longest value.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Preconditions and writes of one transaction, together: it has to fit one record and one turn.
pub const OPERATIONS_MAX: usize = 16_384;
/// Keys and values of one transaction, together: it has to fit one message with room to spare.
pub const TRANSACTION_BYTES_MAX: usize = 24 << 20;
/// Rows asked for or answered at a time.
pub const ROWS_MAX: u32 = 10_000;

/// Nodes of one cluster.
pub(crate) const MEMBERS_MAX: usize = 64;
/// Messages in one delivery; more than ever are sent.
pub(crate) const MESSAGES_MAX: usize = 65_536;
/// The longest address, name or token.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;
/// Counters a process may tell of.
const COUNTERS_MAX: usize = 4096;

/// Why something from outside was not taken.
#[derive(Debug)]
pub(crate) enum Rejected {
    /// It is understood, but breaks a limit or a rule; says which.
    Invalid(String),
    /// It is not understood.
    Malformed(Error),
}

impl From<Error> for Rejected {
    fn from(error: Error) -> Self {
        Self::Malformed(error)
    }
}

impl From<capnp::NotInSchema> for Rejected {
    fn from(error: capnp::NotInSchema) -> Self {
        Self::Malformed(error.into())
    }
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Invalid(reason) => Self::failed(reason),
            Rejected::Malformed(error) => error,
        }
    }
}

pub(crate) fn key(bytes: &[u8]) -> Result<Bytes, Rejected> {
    if bytes.is_empty() {
        return Err(Rejected::Invalid("an empty key; keys have at least 1 byte".to_owned()));
    }
    bound(bytes)
}

/// A key that only bounds a range, and may be empty.
fn bound(bytes: &[u8]) -> Result<Bytes, Rejected> {
    check_key_len(bytes.len())?;
    Ok(copy::copy(bytes))
}

pub(crate) fn value(bytes: &[u8]) -> Result<Bytes, Rejected> {
    check_value_len(bytes.len())?;
    Ok(copy::copy(bytes))
}

/// A value for a caller, who may keep it for ever.
pub(crate) fn value_to_keep(bytes: &[u8]) -> Result<Bytes, Rejected> {
    check_value_len(bytes.len())?;
    Ok(Bytes::copy_from_slice(bytes))
}

fn check_key_len(len: usize) -> Result<(), Rejected> {
    match len > KEY_BYTES_MAX {
        true => Err(Rejected::Invalid(format!(
            "a key of {len} bytes; keys have at most {KEY_BYTES_MAX}"
        ))),
        false => Ok(()),
    }
}

fn check_value_len(len: usize) -> Result<(), Rejected> {
    match len > VALUE_BYTES_MAX {
        true => Err(Rejected::Invalid(format!(
            "a value of {len} bytes; values have at most {VALUE_BYTES_MAX}"
        ))),
        false => Ok(()),
    }
}

fn check_list(what: &str, len: u32, max: usize) -> Result<(), Rejected> {
    match len as usize > max {
        true => Err(Rejected::Invalid(format!("{len} {what}; at most {max} are taken"))),
        false => Ok(()),
    }
}

fn text(reader: capnp::text::Reader<'_>) -> Result<String, Rejected> {
    Ok(reader.to_str().map_err(Error::from)?.to_owned())
}

/// Text that names something, and so is short.
pub(crate) fn short_text(reader: capnp::text::Reader<'_>) -> Result<String, Rejected> {
    let len = reader.as_bytes().len();
    match len > TEXT_BYTES_MAX {
        true => Err(Rejected::Invalid(format!(
            "a name or address of {len} bytes; they have at most {TEXT_BYTES_MAX}"
        ))),
        false => text(reader),
    }
}

/// A list's length on the wire. Ours are far below; a longer one is a mistake of ours.
fn length(len: usize) -> u32 {
    u32::try_from(len).expect("lists are bounded far below four thousand million")
}

/// A number of things that a message tells of.
fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
