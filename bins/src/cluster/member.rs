//! Who belongs to a cluster, and how each is started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

/// A process of a two-phase commit cluster.
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
    /// The coordinator and then so many replicas.
    pub fn all(replicas: u32) -> impl Iterator<Item = Self> + use<> {
        std::iter::once(Self::Coordinator).chain((1..=replicas).map(Self::Replica))
    }

    /// Its data directory's name in the cluster's.
    pub(super) fn directory_name(self) -> String {
        self.to_string().replace(' ', "-")
    }

    /// The server's command line: where it listens, and where it finds the others. A replica is told
    /// of others only if `knows_peers`; it learns of them from its coordinator otherwise.
    pub(super) fn arguments(
        self,
        listen: SocketAddr,
        others: &BTreeMap<Self, SocketAddr>,
        knows_peers: bool,
        data_directory: &Path,
    ) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = match self {
            Self::Coordinator => vec!["coordinator".into()],
            Self::Replica(id) => vec!["replica".into(), "--id".into(), id.to_string().into()],
        };
        arguments.extend(["--listen".into(), listen.to_string().into()]);
        arguments.extend(["--data-dir".into(), data_directory.into()]);
        let flag = match self {
            Self::Coordinator => Some("--replica"),
            Self::Replica(_) if knows_peers => Some("--peer"),
            Self::Replica(_) => None,
        };
        for (member, address) in others {
            if let (Some(flag), Self::Replica(id)) = (flag, member)
                && *member != self
            {
                arguments.extend([flag.into(), format!("{id}={address}").into()]);
            }
        }
        arguments
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

#[cfg(test)]
mod tests {
    use super::*;

    fn command_line(member: Member, knows_peers: bool) -> String {
        let addresses = Member::all(2).zip([7100, 7101, 7102].map(|port| ([127, 0, 0, 1], port)));
        let addresses: BTreeMap<Member, SocketAddr> =
            addresses.map(|(member, address)| (member, address.into())).collect();
        let (listen, data) = (addresses[&member], Path::new("/data"));
        let arguments = member.arguments(listen, &addresses, knows_peers, data);
        let arguments = arguments.iter().map(|argument| argument.to_str().unwrap());
        arguments.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_lines_are_the_documented_ones() {
        assert_eq!(
            command_line(Member::Coordinator, false),
            "coordinator --listen 127.0.0.1:7100 --data-dir /data \
             --replica 1=127.0.0.1:7101 --replica 2=127.0.0.1:7102"
        );
        assert_eq!(
            command_line(Member::Replica(2), false),
            "replica --id 2 --listen 127.0.0.1:7102 --data-dir /data"
        );
        assert_eq!(
            command_line(Member::Replica(2), true),
            "replica --id 2 --listen 127.0.0.1:7102 --data-dir /data --peer 1=127.0.0.1:7101"
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
