//! `admin.capnp`: how a process is.

use kvorum_schema::admin_capnp::status;

use super::{COUNTERS_MAX, MEMBERS_MAX, Rejected, check_list, length, short_text};
use crate::client::{MemberStatus, ProcessStatus};

pub(crate) fn read_status(reader: status::Reader<'_>) -> Result<ProcessStatus, Rejected> {
    let (members, counters) = (reader.get_members()?, reader.get_counters()?);
    check_list("members", members.len(), MEMBERS_MAX)?;
    check_list("counters", counters.len(), COUNTERS_MAX)?;
    Ok(ProcessStatus {
        role: short_text(reader.get_role()?)?,
        protocol: short_text(reader.get_protocol()?)?,
        node: reader.get_node(),
        leader: Some(reader.get_leader()).filter(|leader| *leader != 0),
        cluster: short_text(reader.get_cluster()?)?,
        address: short_text(reader.get_address()?)?,
        version: short_text(reader.get_version()?)?,
        incarnation: reader.get_incarnation(),
        log_last: reader.get_log_last(),
        log_durable: reader.get_log_durable(),
        in_flight: reader.get_in_flight(),
        in_doubt: reader.get_in_doubt(),
        locks: reader.get_locks(),
        uptime_millis: reader.get_uptime_ms(),
        members: members
            .iter()
            .map(|member| {
                Ok(MemberStatus {
                    node: member.get_node(),
                    address: short_text(member.get_address()?)?,
                    up: member.get_up(),
                })
            })
            .collect::<Result<_, Rejected>>()?,
        counters: counters
            .iter()
            .map(|counter| Ok((short_text(counter.get_name()?)?, counter.get_value())))
            .collect::<Result<_, Rejected>>()?,
    })
}

pub(crate) fn write_status(status: &ProcessStatus, mut builder: status::Builder<'_>) {
    builder.set_role(&status.role);
    builder.set_protocol(&status.protocol);
    builder.set_node(status.node);
    builder.set_leader(status.leader.unwrap_or(0));
    builder.set_cluster(&status.cluster);
    builder.set_address(&status.address);
    builder.set_version(&status.version);
    builder.set_incarnation(status.incarnation);
    builder.set_log_last(status.log_last);
    builder.set_log_durable(status.log_durable);
    builder.set_in_flight(status.in_flight);
    builder.set_in_doubt(status.in_doubt);
    builder.set_locks(status.locks);
    builder.set_uptime_ms(status.uptime_millis);
    let mut members = builder.reborrow().init_members(length(status.members.len()));
    for (index, member) in (0..).zip(&status.members) {
        let mut builder = members.reborrow().get(index);
        builder.set_node(member.node);
        builder.set_address(&member.address);
        builder.set_up(member.up);
    }
    let mut counters = builder.init_counters(length(status.counters.len()));
    for (index, (name, value)) in (0..).zip(&status.counters) {
        let mut counter = counters.reborrow().get(index);
        counter.set_name(name);
        counter.set_value(*value);
    }
}
