//! Who belongs to a cluster, and how each is started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use kvorum_replication::Protocol;

/// A process of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// The one that decides.
    Coordinator,
    /// One that holds the data, by its number.
    Replica(u32),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator => f.write_str("coordinator"),
            Self::Replica(id) => write!(f, "replica {id}"),
        }
    }
}

impl Member {
    /// So many replicas, with the numbers from 1; before them the coordinator, if the protocol has
    /// one.
    pub fn all(protocol: Protocol, replicas: u32) -> impl Iterator<Item = Self> + use<> {
        let coordinator = match protocol {
            Protocol::TwoPhase => Some(Self::Coordinator),
            Protocol::AnyReplica | Protocol::Paxos => None,
        };
        coordinator.into_iter().chain((1..=replicas).map(Self::Replica))
    }

    /// Its data directory's name in the cluster's.
    pub(super) fn directory_name(self) -> String {
        self.to_string().replace(' ', "-")
    }

    /// The server's command line: where it listens, and where it finds the others. What `routes` has
    /// of them is another way to them than to where they listen.
    pub(super) fn arguments(
        self,
        protocol: Protocol,
        addresses: &BTreeMap<Self, SocketAddr>,
        routes: &BTreeMap<Self, SocketAddr>,
        data_directory: &Path,
    ) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = match self {
            Self::Coordinator => vec!["coordinator".into()],
            Self::Replica(id) => vec!["replica".into(), "--id".into(), id.to_string().into()],
        };
        let name = match (self, protocol) {
            (Self::Coordinator, _) | (_, Protocol::TwoPhase) => None,
            (_, Protocol::AnyReplica) => Some("2pc"),
            (_, Protocol::Paxos) => Some("paxos"),
        };
        arguments.extend(name.into_iter().flat_map(|name| ["--protocol".into(), name.into()]));
        arguments.extend(["--listen".into(), addresses[&self].to_string().into()]);
        arguments.extend(["--data-dir".into(), data_directory.into()]);
        let others = addresses.iter().filter(|(member, _)| **member != self);
        match (self, protocol) {
            // It may know no other address of theirs: it would tell them to the replicas.
            (Self::Coordinator, _) => {
                let reached =
                    others.map(|(member, address)| (member, routes.get(member).unwrap_or(address)));
                return named(arguments, "--replica", reached);
            }
            // The coordinator tells.
            (Self::Replica(_), Protocol::TwoPhase) => {}
            (Self::Replica(_), Protocol::AnyReplica | Protocol::Paxos) => {
                arguments = named(arguments, "--peer", others);
            }
        }
        named(arguments, "--route", routes.iter())
    }

    /// Whether this is what the member prints when it serves: `ready ROLE id=ID listen=ADDR`.
    pub(super) fn is_ready_line(self, line: &str, address: SocketAddr) -> bool {
        let (role, id) = match self {
            Self::Coordinator => ("coordinator", 0),
            Self::Replica(id) => ("replica", id),
        };
        line == format!("ready {role} id={id} listen={address}")
    }
}

/// Adds a flag for each replica of these.
fn named<'a>(
    mut arguments: Vec<OsString>,
    flag: &str,
    replicas: impl Iterator<Item = (&'a Member, &'a SocketAddr)>,
) -> Vec<OsString> {
    for (member, address) in replicas {
        if let Member::Replica(id) = member {
            arguments.extend([flag.into(), format!("{id}={address}").into()]);
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command_line(protocol: Protocol, member: Member, route: Option<u16>) -> String {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let addresses = Member::all(Protocol::TwoPhase, 2).zip([7100, 7101, 7102].map(at));
        let mut addresses: BTreeMap<Member, SocketAddr> = addresses.collect();
        if protocol != Protocol::TwoPhase {
            addresses.remove(&Member::Coordinator);
        }
        let routes = route.map(|port| (Member::Replica(1), at(port))).into_iter().collect();
        let arguments = member.arguments(protocol, &addresses, &routes, Path::new("/data"));
        let arguments = arguments.iter().map(|argument| argument.to_str().unwrap());
        arguments.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_lines_are_the_documented_ones() {
        let (coordinator, replica) = (Member::Coordinator, Member::Replica(2));
        assert_eq!(
            command_line(Protocol::TwoPhase, coordinator, None),
            "coordinator --listen 127.0.0.1:7100 --data-dir /data \
             --replica 1=127.0.0.1:7101 --replica 2=127.0.0.1:7102"
        );
        assert_eq!(
            command_line(Protocol::TwoPhase, coordinator, Some(7201)),
            "coordinator --listen 127.0.0.1:7100 --data-dir /data \
             --replica 1=127.0.0.1:7201 --replica 2=127.0.0.1:7102"
        );
        assert_eq!(
            command_line(Protocol::TwoPhase, replica, None),
            "replica --id 2 --listen 127.0.0.1:7102 --data-dir /data"
        );
        assert_eq!(
            command_line(Protocol::TwoPhase, replica, Some(7201)),
            "replica --id 2 --listen 127.0.0.1:7102 --data-dir /data --route 1=127.0.0.1:7201"
        );
        assert_eq!(
            command_line(Protocol::Paxos, replica, None),
            "replica --id 2 --protocol paxos --listen 127.0.0.1:7102 --data-dir /data \
             --peer 1=127.0.0.1:7101"
        );
        assert_eq!(
            command_line(Protocol::Paxos, replica, Some(7201)),
            "replica --id 2 --protocol paxos --listen 127.0.0.1:7102 --data-dir /data \
             --peer 1=127.0.0.1:7101 --route 1=127.0.0.1:7201"
        );
    }

    #[test]
    fn only_the_members_own_line_is_ready() {
        let address = ([127, 0, 0, 1], 7101).into();
        let check = |member: Member, line| member.is_ready_line(line, address);
        assert!(check(Member::Replica(1), "ready replica id=1 listen=127.0.0.1:7101"));
        assert!(check(Member::Coordinator, "ready coordinator id=0 listen=127.0.0.1:7101"));
        assert!(!check(Member::Replica(1), "ready replica id=2 listen=127.0.0.1:7101"));
        assert!(!check(Member::Replica(1), "ready replica id=1 listen=127.0.0.1:7102"));
        assert!(!check(Member::Replica(1), "listening on 127.0.0.1:7101"));
    }
}
