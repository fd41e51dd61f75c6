//! How new the answer to a read must be.

use bytes::Bytes;
use clap::{Args, ValueEnum};
use kvorum_replication::Range;
use kvorum_rpc::client::{Client, ScanPage};

use crate::error::CommandError;

/// The flag of the commands that read.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Reading {
    /// How new the answer must be
    #[arg(long, value_name = "FRESHNESS", value_enum, default_value_t)]
    #[arg(hide_default_value = true)]
    pub(crate) read: Freshness,
}

/// How new the answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Freshness {
    /// With everything that was acknowledged before it was asked for; the default
    #[default]
    Linearizable,
    /// What the connected replica has at that moment, be it old; also when too few are left for more
    Stale,
}

impl Freshness {
    /// The value of a key.
    pub(crate) async fn get(
        self,
        client: &Client,
        key: Bytes,
    ) -> Result<Option<Bytes>, CommandError> {
        Ok(match self {
            Self::Linearizable => client.get(key).await?,
            Self::Stale => client.get_stale(key).await?,
        })
    }

    /// The rows of a range.
    pub(crate) async fn scan(
        self,
        client: &Client,
        range: Range,
    ) -> Result<ScanPage, CommandError> {
        Ok(match self {
            Self::Linearizable => client.scan(range).await?,
            Self::Stale => client.scan_stale(range).await?,
        })
    }
}
