//! How commands reach the cluster.

use std::time::Duration;

use kvorum_rpc::client::{Client, ClientOptions};

use crate::arguments::Global;
use crate::conflicts::OnConflict;
use crate::error::CommandError;

/// How long to try to reach one address; a process that lives answers within milliseconds. Or a
/// quarter of the time for all, where somebody is more patient than most.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How long a process may take to tell of itself before it counts as down; or as large a part of the
/// time for all.
const PROBE_MAX: Duration = Duration::from_secs(2);

/// The part of the time for all that one process may take.
const PART: u32 = 4;

/// Connects to the cluster that the command line names.
pub(crate) async fn connect(global: &Global) -> Result<Client, CommandError> {
    Ok(Client::connect(options(global.connect.clone(), global.timeout)).await?)
}

/// The same, for writes that are treated so if they meet others.
pub(crate) async fn connect_to_write(
    global: &Global,
    on_conflict: OnConflict,
) -> Result<Client, CommandError> {
    let options = options(global.connect.clone(), global.timeout);
    let on_conflict = on_conflict.into();
    Ok(Client::connect(ClientOptions { on_conflict, ..options }).await?)
}

/// Connects to one process, to ask it about itself.
pub(crate) async fn connect_to(address: &str, global: &Global) -> Result<Client, CommandError> {
    let timeout = global.timeout.min(PROBE_MAX.max(global.timeout / PART));
    Ok(Client::connect(options(vec![address.to_owned()], timeout)).await?)
}

/// What a client is built with.
pub(crate) fn options(addresses: Vec<String>, timeout: Duration) -> ClientOptions {
    let connect_timeout = timeout.min(CONNECT_MAX.max(timeout / PART));
    ClientOptions { timeout, connect_timeout, ..ClientOptions::new(addresses) }
}
