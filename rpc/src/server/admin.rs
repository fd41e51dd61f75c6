//! `Admin`: how this process is, what it holds, and who belongs to its cluster.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use capnp::Error;
use kvorum_node::Report;
use kvorum_replication::{Failure, NodeId, Outcome};
use kvorum_schema::admin_capnp::admin;
use kvorum_schema::client_capnp::write_result;
use tokio::task::spawn_local;

use super::door::Post;
use super::hub::Service;
use super::key_value::write_write;
use super::replicas;
use super::worker::Worker;
use crate::client::{MemberStatus, ProcessStatus};
use crate::convert::client::write_rows;
use crate::convert::{KEY_BYTES_MAX, ROWS_MAX, admin::write_status, short_text};

/// How long a node may take to say how it is. It may be busy, or not get to run for seconds on a machine
/// that is; who asks has a patience of its own.
const REPORT_WAIT: Duration = Duration::from_secs(30);

pub(super) struct Admin {
    worker: Rc<Worker>,
}

impl Admin {
    pub(super) fn new(worker: Rc<Worker>) -> Self {
        Self { worker }
    }

    /// Makes a change to its end, also if who asked for it does not wait.
    async fn changed(
        &self,
        change: impl Future<Output = Result<(), Failure>> + 'static,
        result: write_result::Builder<'_>,
    ) -> Result<(), Error> {
        let outcome = match spawn_local(change).await {
            Ok(Ok(())) => Outcome::Committed,
            Ok(Err(failure)) => Outcome::Failed(failure),
            Err(panic) => Outcome::Failed(Failure::Unknown { reason: panic.to_string() }),
        };
        write_write(&self.worker.service, outcome, result)
    }
}

impl admin::Server for Admin {
    async fn status(
        self: Rc<Self>,
        _params: admin::StatusParams,
        mut results: admin::StatusResults,
    ) -> Result<(), Error> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.worker.requests.post(Post::Report(sender));
        let report = tokio::task::spawn_blocking(move || receiver.recv_timeout(REPORT_WAIT)).await;
        let Ok(Ok(report)) = report else {
            return Err(Error::overloaded("the node did not say how it is in time".to_owned()));
        };
        let status = process_status(&self.worker.service, report);
        write_status(&status, results.get().init_status());
        Ok(())
    }

    async fn inspect(
        self: Rc<Self>,
        params: admin::InspectParams,
        mut results: admin::InspectResults,
    ) -> Result<(), Error> {
        let (start, limit) = {
            let params = params.get()?;
            (params.get_start()?.to_vec(), params.get_limit().min(ROWS_MAX))
        };
        if start.len() > KEY_BYTES_MAX {
            return Err(Error::failed(format!("keys have at most {KEY_BYTES_MAX} bytes")));
        }
        let Some(inspect) = self.worker.service.inspect.clone() else {
            return Ok(());
        };
        let read = tokio::task::spawn_blocking(move || inspect(Bytes::from(start), limit)).await;
        let (rows, more) = read
            .map_err(|error| Error::failed(format!("the store could not be read: {error}")))?
            .map_err(Error::failed)?;
        let mut results = results.get();
        results.set_more(more);
        let count = u32::try_from(rows.len()).map_err(|_| Error::failed("too many rows".into()))?;
        write_rows(&rows, results.init_rows(count));
        Ok(())
    }

    async fn add_replica(
        self: Rc<Self>,
        params: admin::AddReplicaParams,
        mut results: admin::AddReplicaResults,
    ) -> Result<(), Error> {
        let (node, address, timeout_ms) = {
            let params = params.get()?;
            let address = short_text(params.get_address()?)?;
            (NodeId(params.get_node()), address, params.get_timeout_ms())
        };
        let adding = replicas::add(Rc::clone(&self.worker), node, address, timeout_ms);
        self.changed(adding, results.get().init_result()).await
    }

    async fn remove_replica(
        self: Rc<Self>,
        params: admin::RemoveReplicaParams,
        mut results: admin::RemoveReplicaResults,
    ) -> Result<(), Error> {
        let (node, timeout_ms) = {
            let params = params.get()?;
            (NodeId(params.get_node()), params.get_timeout_ms())
        };
        let removing = replicas::remove(Rc::clone(&self.worker), node, timeout_ms);
        self.changed(removing, results.get().init_result()).await
    }
}

fn process_status(service: &Service, report: Report) -> ProcessStatus {
    let identity = service.identity.identity();
    let status = report.status;
    let mut counters: Vec<_> =
        status.counters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    counters.extend(report.counters);
    counters.extend(transport(service));
    ProcessStatus {
        role: status.role.to_string(),
        protocol: service.door.protocol().to_string(),
        node: identity.node.0,
        leader: status.leader.map(|leader| leader.0),
        cluster: identity.cluster.map_or(String::new(), |cluster| cluster.to_string()),
        address: service.hub.address.clone(),
        version: service.hub.options.version.clone(),
        incarnation: status.incarnation,
        log_last: report.log_last,
        log_durable: report.log_durable,
        in_flight: status.in_flight,
        in_doubt: status.in_doubt,
        locks: status.locks,
        uptime_millis: report.uptime_millis,
        members: identity
            .members
            .into_iter()
            .map(|(node, address)| MemberStatus {
                node: node.0,
                address: service.address_for(node, address),
                up: node == identity.node || service.hub.peers.is_up(node),
            })
            .collect(),
        counters,
    }
}

fn transport(service: &Service) -> Vec<(String, u64)> {
    let counters = &service.hub.counters;
    let dropped = service.hub.peers.dropped();
    let connections = service.hub.connections.load(Ordering::Relaxed);
    let [gets, scans, writes] = service.hub.limits();
    [
        ("rpc_connections", connections as u64),
        ("rpc_connections_opened", counters.connections_opened.load(Ordering::Relaxed)),
        ("rpc_connections_refused", counters.connections_refused.load(Ordering::Relaxed)),
        ("rpc_violations", counters.violations.load(Ordering::Relaxed)),
        ("rpc_messages_in", counters.messages_in.load(Ordering::Relaxed)),
        ("rpc_messages_out", counters.messages_out.load(Ordering::Relaxed)),
        ("rpc_flushes", counters.flushes.load(Ordering::Relaxed)),
        ("rpc_events", counters.requests.load(Ordering::Relaxed)),
        ("rpc_submits", counters.submits.load(Ordering::Relaxed)),
        ("rpc_overloaded", counters.overloaded.load(Ordering::Relaxed)),
        ("rpc_limit_gets", gets),
        ("rpc_limit_scans", scans),
        ("rpc_limit_writes", writes),
        ("rpc_unfinished_bytes", service.hub.unfinished_bytes()),
        ("rpc_peer_messages_dropped", dropped),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
