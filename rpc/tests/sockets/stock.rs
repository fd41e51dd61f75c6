//! The other side as anybody would write it: capnp-rpc with its own network.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures::io::{AsyncRead, AsyncWrite};
use kvorum_schema::client_capnp::{gate, key_value, write};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::spawn_local;

/// A stream's half as capnp-rpc's network wants it.
struct Half<T>(T);

impl AsyncRead for Half<OwnedReadHalf> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Half<OwnedWriteHalf> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

fn network(stream: TcpStream, side: Side) -> Box<twoparty::VatNetwork<Half<OwnedReadHalf>>> {
    stream.set_nodelay(true).unwrap();
    let (read, write) = stream.into_split();
    Box::new(twoparty::VatNetwork::new(Half(read), Half(write), side, Default::default()))
}

/// The gate of a server.
pub(crate) async fn dial(address: SocketAddr) -> gate::Client {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut system = RpcSystem::new(network(stream, Side::Client), None);
    let gate = system.bootstrap(Side::Server);
    spawn_local(system);
    gate
}

/// The store behind it, settled.
pub(crate) async fn store(gate: &gate::Client) -> key_value::Client {
    gate.client_request().send().promise.await.unwrap().get().unwrap().get_store().unwrap()
}

/// Serves the connections that come, from memory, until the runtime ends.
pub(crate) async fn serve(store: Rc<Store>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let gate: gate::Client = capnp_rpc::new_client(Gate(Rc::clone(&store)));
            spawn_local(RpcSystem::new(network(stream, Side::Server), Some(gate.client)));
        }
    });
    address
}

struct Gate(Rc<Store>);

impl gate::Server for Gate {
    async fn client(
        self: Rc<Self>,
        params: gate::ClientParams,
        mut results: gate::ClientResults,
    ) -> Result<(), capnp::Error> {
        if params.get()?.get_token()? == b"wrong" {
            return Err(capnp::Error::failed("not with this token".to_owned()));
        }
        let store: key_value::Client = capnp_rpc::new_client_from_rc(Rc::clone(&self.0));
        match self.0.promised {
            // A capability that settles only after it was given out.
            true => {
                let later = async move {
                    tokio::task::yield_now().await;
                    Ok(store.client)
                };
                let later = capnp_rpc::new_future_client::<key_value::Client>(async move {
                    later.await.map(|client| key_value::Client { client })
                });
                results.get().set_store(later);
            }
            false => results.get().set_store(store),
        }
        Ok(())
    }
}

/// A store in memory; sessions are counted, and nothing else is known of them.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) rows: std::cell::RefCell<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Gives itself out as a promise first.
    pub(crate) promised: bool,
}

impl key_value::Server for Store {
    async fn open_session(
        self: Rc<Self>,
        _params: key_value::OpenSessionParams,
        mut results: key_value::OpenSessionResults,
    ) -> Result<(), capnp::Error> {
        results.get().init_result().set_client(1);
        Ok(())
    }

    async fn get(
        self: Rc<Self>,
        params: key_value::GetParams,
        mut results: key_value::GetResults,
    ) -> Result<(), capnp::Error> {
        let key = params.get()?.get_key()?;
        let mut result = results.get().init_result();
        match self.rows.borrow().get(key) {
            Some(value) => result.set_value(value),
            None => result.set_missing(()),
        }
        Ok(())
    }

    async fn put(
        self: Rc<Self>,
        params: key_value::PutParams,
        mut results: key_value::PutResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let (key, value) = (params.get_key()?.to_vec(), params.get_value()?.to_vec());
        if key == b"throw" {
            return Err(capnp::Error::overloaded("not now".to_owned()));
        }
        self.rows.borrow_mut().insert(key, value);
        results.get().init_result().set_committed(());
        Ok(())
    }

    async fn delete(
        self: Rc<Self>,
        params: key_value::DeleteParams,
        mut results: key_value::DeleteResults,
    ) -> Result<(), capnp::Error> {
        self.rows.borrow_mut().remove(params.get()?.get_key()?);
        results.get().init_result().set_committed(());
        Ok(())
    }

    async fn transact(
        self: Rc<Self>,
        params: key_value::TransactParams,
        mut results: key_value::TransactResults,
    ) -> Result<(), capnp::Error> {
        for operation in params.get()?.get_transaction()?.get_writes()? {
            let key = operation.get_key()?.to_vec();
            match operation.which()? {
                write::Put(value) => drop(self.rows.borrow_mut().insert(key, value?.to_vec())),
                write::Delete(()) => drop(self.rows.borrow_mut().remove(&key)),
            }
        }
        results.get().init_result().set_committed(());
        Ok(())
    }

    async fn scan(
        self: Rc<Self>,
        _params: key_value::ScanParams,
        mut results: key_value::ScanResults,
    ) -> Result<(), capnp::Error> {
        let rows = self.rows.borrow();
        let count = u32::try_from(rows.len()).unwrap();
        let mut builder = results.get().init_result().init_rows().init_rows(count);
        for (index, (key, value)) in (0..).zip(rows.iter()) {
            let mut row = builder.reborrow().get(index);
            row.set_key(key);
            row.set_value(value);
        }
        Ok(())
    }
}
