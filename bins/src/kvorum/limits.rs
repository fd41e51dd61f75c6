//! What a request may hold. The cluster refuses what is larger; checking first saves sending it.

pub(crate) use kvorum_rpc::{KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX};

use crate::error::CommandError;
use crate::statement::Statement;
use crate::text::quoted;

/// Refuses what cannot be a key.
pub(crate) fn check_key(key: &[u8]) -> Result<(), CommandError> {
    if key.is_empty() {
        return Err(CommandError::usage("a key has at least 1 byte, and this one has none", ""));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(CommandError::usage(
            format!("the key {} is larger than {KEY_BYTES_MAX} bytes (64 KiB)", quoted(key)),
            "use a shorter key, for instance a hash of it, and keep the rest in the value",
        ));
    }
    Ok(())
}

/// Refuses what cannot be a value.
pub(crate) fn check_value(key: &[u8], value: &[u8]) -> Result<(), CommandError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(value_too_large(key, &format!("has {} bytes", value.len())));
    }
    Ok(())
}

/// The error for a value whose size is `size`, as in "has 17 bytes".
pub(crate) fn value_too_large(key: &[u8], size: &str) -> CommandError {
    CommandError::usage(
        format!("the value for {} {size}; the largest has {VALUE_BYTES_MAX} (16 MiB)", quoted(key)),
        "split it over several keys and write them in one transaction with `kvorum txn`",
    )
}

/// Refuses a statement whose key or value cannot be one.
pub(crate) fn check_statement(statement: &Statement) -> Result<(), CommandError> {
    statement.keys().iter().try_for_each(|key| check_key(key))?;
    statement.values().into_iter().try_for_each(|value| check_value(&statement.keys()[0], value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_exact() {
        assert!(check_key(b"k").is_ok());
        assert!(check_key(&vec![0; KEY_BYTES_MAX]).is_ok());
        assert!(check_key(&vec![0; KEY_BYTES_MAX + 1]).is_err());
        assert!(check_key(b"").is_err());
        assert!(check_value(b"k", b"").is_ok());
        assert!(check_value(b"k", &vec![0; VALUE_BYTES_MAX]).is_ok());
        assert!(check_value(b"k", &vec![0; VALUE_BYTES_MAX + 1]).is_err());
    }
}
