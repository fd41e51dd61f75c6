//! Reading several keys at one point in time.

use bytes::Bytes;
use kvorum_schema::client_capnp::get_many_result;
use kvorum_schema::client_capnp::key_value::{get_many_params, get_many_results};

use super::connection::Connection;
use super::error::ClientError;
use super::operations::{Journey, Next, Tried, Within, ended, invalid, told};
use super::{Freshness, Inner};
use crate::convert::Rejected;
use crate::convert::client::{check_keys, read_values, write_keys};
use crate::hot::Method;

/// What a key takes in a call beside its bytes: its pointer, and up to a word to fill up.
const KEY_BYTES: usize = 16;

impl Inner {
    pub(super) async fn get_many(
        &self,
        keys: &[Bytes],
        freshness: Freshness,
        within: Within,
    ) -> Result<Vec<Option<Bytes>>, ClientError> {
        check_keys(keys).map_err(invalid)?;
        let mut journey = Journey::within("reading many keys", within, false);
        loop {
            let connection = match self.reach(&mut journey).await? {
                Some(connection) => connection,
                None => continue,
            };
            let tried = get_many_once(&connection, &journey, keys, freshness).await;
            if let Next::Return(result) = self.judge(&mut journey, &connection, tried).await {
                return result;
            }
        }
    }
}

async fn get_many_once(
    connection: &Connection,
    journey: &Journey,
    keys: &[Bytes],
    freshness: Freshness,
) -> Tried<Vec<Option<Bytes>>> {
    let bytes = keys.iter().map(|key| key.len() + KEY_BYTES).sum();
    let store = &connection.store;
    let asked = store.call::<get_many_params::Owned>(Method::GetMany, bytes, |mut params| {
        params.set_timeout_ms(journey.left_ms());
        params.set_stale(freshness == Freshness::Stale);
        let count = u32::try_from(keys.len()).expect("the keys were counted before");
        write_keys(keys, params.init_keys(count));
    });
    match connection.answer(asked, journey.patience()).await {
        Ok(response) => {
            let results = response.results::<get_many_results::Reader<'_>>();
            let result = results.and_then(|results| results.get_result());
            ended(result.map(|result| read_get_many(result, keys.len())))
        }
        Err(unanswered) => unanswered.into(),
    }
}

fn read_get_many(
    result: get_many_result::Reader<'_>,
    wanted: usize,
) -> Result<Tried<Vec<Option<Bytes>>>, Rejected> {
    match result.which()? {
        get_many_result::Values(values) => {
            let values = read_values(values?)?;
            Ok(match values.len() == wanted {
                true => Tried::Done(values),
                false => Tried::Garbled(format!("{} values for {wanted} keys", values.len())),
            })
        }
        get_many_result::Failed(failed) => told(failed),
    }
}
