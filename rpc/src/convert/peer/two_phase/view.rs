//! What is said of views and leases.

use std::time::Duration;

use kvorum_replication::Time;
use kvorum_replication::two_phase::message::{CommitNumber, ViewMessage};
use kvorum_schema::peer_capnp::view_message as schema;

use super::super::super::{Rejected, count, length};

pub(super) fn read(reader: schema::Reader<'_>) -> Result<ViewMessage, Rejected> {
    Ok(match reader.which()? {
        schema::Announce(it) => {
            ViewMessage::Announce { view: it.get_view(), others: count(it.get_others()) }
        }
        schema::Renew(it) => ViewMessage::Renew {
            incarnation: it.get_incarnation(),
            at: Time(it.get_at()),
            view: it.get_view(),
            applied: CommitNumber(it.get_applied()),
        },
        schema::Grant(it) => ViewMessage::Grant {
            incarnation: it.get_incarnation(),
            at: Time(it.get_at()),
            lease: Duration::from_nanos(it.get_lease()),
        },
        schema::Excluded(it) => {
            ViewMessage::Excluded { view: it.get_view(), others: count(it.get_others()) }
        }
        schema::Ask(it) => {
            ViewMessage::Ask { round: it.get_round(), incarnation: it.get_incarnation() }
        }
        schema::Heard(it) => ViewMessage::Heard {
            round: it.get_round(),
            incarnation: it.get_incarnation(),
            view: it.get_view(),
        },
    })
}

pub(super) fn write(message: ViewMessage, builder: schema::Builder<'_>) {
    match message {
        ViewMessage::Announce { view, others } => {
            let mut builder = builder.init_announce();
            builder.set_view(view);
            builder.set_others(length(others));
        }
        ViewMessage::Renew { incarnation, at, view, applied } => {
            let mut builder = builder.init_renew();
            builder.set_incarnation(incarnation);
            builder.set_at(at.0);
            builder.set_view(view);
            builder.set_applied(applied.0);
        }
        ViewMessage::Grant { incarnation, at, lease } => {
            let mut builder = builder.init_grant();
            builder.set_incarnation(incarnation);
            builder.set_at(at.0);
            builder.set_lease(u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX));
        }
        ViewMessage::Excluded { view, others } => {
            let mut builder = builder.init_excluded();
            builder.set_view(view);
            builder.set_others(length(others));
        }
        ViewMessage::Ask { round, incarnation } => {
            let mut builder = builder.init_ask();
            builder.set_round(round);
            builder.set_incarnation(incarnation);
        }
        ViewMessage::Heard { round, incarnation, view } => {
            let mut builder = builder.init_heard();
            builder.set_round(round);
            builder.set_incarnation(incarnation);
            builder.set_view(view);
        }
    }
}
