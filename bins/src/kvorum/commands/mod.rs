//! The commands, one file each; the shell uses them too.

mod export;
mod import;
mod inspect;
mod keys;
mod replicas;
mod scan;
mod status;
mod store;
mod txn;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use bytes::Bytes;

pub(crate) use export::export;
pub(crate) use import::import;
pub(crate) use inspect::inspect;
pub(crate) use keys::{del, get, print_all, print_found, put, value_of};
pub(crate) use replicas::change_replicas;
pub(crate) use scan::scan;
pub(crate) use status::status;
pub(crate) use store::{Store, store};
pub(crate) use txn::{
    Size, TransactionText, commit, commit_by_hand, read_line, read_transaction, run,
};

/// An argument's bytes, whatever they are.
pub(crate) fn bytes_of(argument: OsString) -> Bytes {
    Bytes::from(argument.into_vec())
}
