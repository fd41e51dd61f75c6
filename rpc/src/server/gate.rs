//! `Gate`: what a connection meets first. It gives out what the visitor has a right to.

use std::cell::OnceCell;
use std::rc::Rc;

use capnp::Error;
use kvorum_schema::admin_capnp::admin;
use kvorum_schema::client_capnp::{gate, key_value};

use super::admin::Admin;
use super::connection::Connection;
use super::key_value::KeyValue;
use super::worker::Worker;
use crate::convert::peer::{read_hello, write_hello};
use crate::peers;

pub(super) struct Gate {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    store: OnceCell<key_value::Client>,
    admin: OnceCell<admin::Client>,
}

impl Gate {
    pub(super) fn new(worker: Rc<Worker>, connection: Rc<Connection>) -> Self {
        Self { worker, connection, store: OnceCell::new(), admin: OnceCell::new() }
    }

    fn admit(&self, token: &[u8]) -> Result<(), Error> {
        let wanted = &self.worker.service.hub.options.token;
        if !wanted.is_empty() && !same(wanted, token) {
            tracing::warn!(peer = %self.connection.from, "a wrong token was shown");
            return Err(Error::failed("refused: the token is wrong".to_owned()));
        }
        self.connection.admit();
        Ok(())
    }
}

/// Compares without telling by its time where the first difference is.
fn same(wanted: &[u8], shown: &[u8]) -> bool {
    wanted.len() == shown.len()
        && wanted.iter().zip(shown).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

impl gate::Server for Gate {
    async fn client(
        self: Rc<Self>,
        params: gate::ClientParams,
        mut results: gate::ClientResults,
    ) -> Result<(), Error> {
        self.admit(params.get()?.get_token()?)?;
        let store = self.store.get_or_init(|| {
            let server = KeyValue::new(Rc::clone(&self.worker), Rc::clone(&self.connection));
            capnp_rpc::new_client(server)
        });
        results.get().set_store(store.clone());
        Ok(())
    }

    async fn admin(
        self: Rc<Self>,
        params: gate::AdminParams,
        mut results: gate::AdminResults,
    ) -> Result<(), Error> {
        self.admit(params.get()?.get_token()?)?;
        let admin =
            self.admin.get_or_init(|| capnp_rpc::new_client(Admin::new(Rc::clone(&self.worker))));
        results.get().set_admin(admin.clone());
        Ok(())
    }

    async fn attach(
        self: Rc<Self>,
        params: gate::AttachParams,
        mut results: gate::AttachResults,
    ) -> Result<(), Error> {
        let (hello, inbox) = {
            let params = params.get()?;
            (read_hello(params.get_hello()?)?, params.get_inbox()?)
        };
        let attached = peers::accept(&self.worker, &self.connection, hello, inbox).await;
        let mut result = results.get().init_result();
        match attached {
            Ok(peers::Attached::Accepted(hello, inbox)) => {
                let mut accepted = result.init_accepted();
                write_hello(&hello, accepted.reborrow().init_hello());
                accepted.set_inbox(inbox);
            }
            Ok(peers::Attached::NotYet(hello)) => write_hello(&hello, result.init_not_yet()),
            Err(reason) => {
                tracing::error!(peer = %self.connection.from, reason, "refused a node");
                self.worker.service.note_refusal(&reason);
                result.set_refused(&reason);
            }
        }
        Ok(())
    }
}
