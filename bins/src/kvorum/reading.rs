//! How new the answer to a read must be.

use bytes::Bytes;
use clap::{Args, ValueEnum};
use kvorum_rpc::client::{Client, Rows};

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

    /// The values of several keys at one point in time.
    pub(crate) async fn get_many(
        self,
        client: &Client,
        keys: Vec<Bytes>,
    ) -> Result<Vec<Option<Bytes>>, CommandError> {
        Ok(match self {
            Self::Linearizable => client.get_many(keys).await?,
            Self::Stale => client.get_many_stale(keys).await?,
        })
    }

    /// The rows of a range at one point in time, page by page.
    pub(crate) fn rows(self, client: &Client, start: Bytes, end: Option<Bytes>) -> Rows {
        let rows = client.rows(start, end);
        match self {
            Self::Linearizable => rows,
            Self::Stale => rows.stale(),
        }
    }
}
