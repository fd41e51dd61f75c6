//! Adding and removing replicas, of a cluster with a coordinator.

use capnp::Error;
use kvorum_schema::admin_capnp::admin;
use kvorum_schema::client_capnp::write_result;

use super::connection::{Connection, Unanswered};
use super::error::ClientError;
use super::operations::{Journey, Next, Tried, ended, read_write};
use super::{ErrorKind, Inner};

/// How the replicas are to change.
pub(super) enum Change<'a> {
    Add(u32, &'a str),
    Remove(u32),
}

impl Change<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Add(..) => "adding a replica",
            Self::Remove(_) => "removing a replica",
        }
    }
}

impl Inner {
    /// Asks until it is known how it ended: what is so already is done.
    pub(super) async fn change_replicas(&self, change: &Change<'_>) -> Result<(), ClientError> {
        let mut journey = Journey::within(change.name(), self.within(), true);
        loop {
            let connection = match self.reach(&mut journey).await.map_err(in_words_of_its_own)? {
                Some(connection) => connection,
                None => continue,
            };
            let tried = self.change_once(&connection, &journey, change).await;
            let tried = tried.unwrap_or_else(Tried::from);
            if let Next::Return(result) = self.judge(&mut journey, &connection, tried).await {
                return result.map_err(in_words_of_its_own);
            }
        }
    }

    async fn change_once(
        &self,
        connection: &Connection,
        journey: &Journey,
        change: &Change<'_>,
    ) -> Result<Tried<()>, Unanswered> {
        let patience = journey.patience();
        let admin = connection.admin(&self.options.token, patience).await?;
        match *change {
            Change::Add(node, address) => {
                let mut request = admin.add_replica_request();
                request.get().set_node(node);
                request.get().set_address(address);
                request.get().set_timeout_ms(journey.left_ms());
                let response = connection.call(request.send().promise, patience).await?;
                Ok(told(response.get().and_then(admin::add_replica_results::Reader::get_result)))
            }
            Change::Remove(node) => {
                let mut request = admin.remove_replica_request();
                request.get().set_node(node);
                request.get().set_timeout_ms(journey.left_ms());
                let response = connection.call(request.send().promise, patience).await?;
                Ok(told(response.get().and_then(admin::remove_replica_results::Reader::get_result)))
            }
        }
    }
}

fn told(result: Result<write_result::Reader<'_>, Error>) -> Tried<()> {
    ended(result.map(read_write))
}

/// There are no keys to be read here, and nothing to be made smaller.
fn in_words_of_its_own(error: ClientError) -> ClientError {
    let remedy = match error.kind {
        ErrorKind::Invalid => "",
        ErrorKind::Unknown => "ask again: if it has happened, nothing more will",
        _ => return error,
    };
    ClientError { remedy: remedy.to_owned(), ..error }
}
