//! The flags of `kvorumd replica --protocol paxos`.

use std::time::Duration;

use clap::Args;
use kvorum_replication::paxos::{AcceptorRestart, ReplicaOptions};

use super::error::ServeError;
use crate::time::duration;

/// The flags that only Multi-Paxos has.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Multi-Paxos")]
pub struct PaxosFlags {
    /// The replica's acceptor stops and comes back at random, about this often: to see that the
    /// others go on
    #[arg(long, value_name = "MEAN_SECONDS", value_parser = duration)]
    pub fail_acceptors: Option<Duration>,

    /// Each of its roles does, by itself: proposer, acceptor and learner
    #[arg(long, value_name = "MEAN_SECONDS", value_parser = duration)]
    pub fail_roles: Option<Duration>,

    /// What an acceptor knows that comes back from that: durable, all it knew; rejoin, nothing, so
    /// that it votes only after the others have taken it in anew [default: durable]
    #[arg(long, value_name = "HOW", value_parser = acceptor_restart)]
    pub acceptor_restart: Option<AcceptorRestart>,

    /// Let the leader answer reads by a lease of so long instead of asking a majority each time. It
    /// rests on clocks that run about equally fast
    #[arg(long, value_name = "MILLISECONDS", value_parser = read_lease)]
    pub read_lease: Option<Duration>,
}

impl PaxosFlags {
    /// Refuses flags that mean nothing without others.
    pub(super) fn check(&self) -> Result<(), ServeError> {
        let fails = self.fail_acceptors.is_some() || self.fail_roles.is_some();
        if self.acceptor_restart.is_some() && !fails {
            return Err(ServeError::usage(
                "--acceptor-restart says how acceptors come back, and none is to fail",
                "give --fail-acceptors or --fail-roles as well; for a replica whose disk is lost \
                 there is --rejoin",
            ));
        }
        Ok(())
    }

    /// The first of the flags that is given, for a protocol that knows none of them.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let flags = [
            (self.fail_acceptors.is_some(), "--fail-acceptors"),
            (self.fail_roles.is_some(), "--fail-roles"),
            (self.acceptor_restart.is_some(), "--acceptor-restart"),
            (self.read_lease.is_some(), "--read-lease"),
        ];
        flags.into_iter().find_map(|(is_given, name)| is_given.then_some(name))
    }

    /// The core's options with what the flags say of them.
    pub(super) fn apply(&self, options: ReplicaOptions) -> ReplicaOptions {
        ReplicaOptions {
            fail_acceptors: self.fail_acceptors,
            fail_roles: self.fail_roles,
            acceptor_restart: self.acceptor_restart.unwrap_or_default(),
            lease: self.read_lease,
            ..options
        }
    }
}

fn acceptor_restart(text: &str) -> Result<AcceptorRestart, String> {
    match text {
        "durable" => Ok(AcceptorRestart::Durable),
        "rejoin" => Ok(AcceptorRestart::Rejoin),
        "amnesia" => Err("an acceptor that has forgotten its votes and votes all the same breaks \
                          Paxos: two values can be chosen in one slot. Only the simulator has it: \
                          kvorum-lab sim --protocol paxos"
            .to_owned()),
        _ => Err("it is durable or rejoin".to_owned()),
    }
}

/// A lease that outlives the election timeout would hold elections up.
fn read_lease(text: &str) -> Result<Duration, String> {
    let longest = ReplicaOptions::default().election_timeout_min;
    match text.parse().map(Duration::from_millis) {
        Ok(lease) if !lease.is_zero() && lease <= longest => Ok(lease),
        _ => Err(format!(
            "it is a whole number of milliseconds, from 1 to the shortest election timeout, {}",
            longest.as_millis()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amnesia_is_for_the_simulator() {
        assert_eq!(acceptor_restart("durable"), Ok(AcceptorRestart::Durable));
        assert_eq!(acceptor_restart("rejoin"), Ok(AcceptorRestart::Rejoin));
        let refused = acceptor_restart("amnesia").unwrap_err();
        assert!(
            refused.contains("breaks Paxos") && refused.contains("kvorum-lab sim"),
            "{refused}"
        );
        assert!(acceptor_restart("").is_err());
    }

    #[test]
    fn a_lease_ends_before_an_election_begins() {
        let longest = ReplicaOptions::default().election_timeout_min.as_millis();
        assert!(read_lease(&longest.to_string()).is_ok());
        let longer = (longest + 1).to_string();
        for wrong in ["0", &longer, "-1", "1.5", "100ms", ""] {
            assert!(read_lease(wrong).unwrap_err().contains("to the shortest"), "{wrong}");
        }
    }

    #[test]
    fn flags_become_options() {
        let second = Duration::from_secs(1);
        let flags = PaxosFlags {
            fail_acceptors: Some(second),
            fail_roles: Some(2 * second),
            acceptor_restart: Some(AcceptorRestart::Rejoin),
            read_lease: Some(second / 4),
        };
        let options = flags.apply(ReplicaOptions::default());
        assert_eq!((options.fail_acceptors, options.fail_roles), (Some(second), Some(2 * second)));
        assert_eq!(options.acceptor_restart, AcceptorRestart::Rejoin);
        assert_eq!(options.lease, Some(second / 4));
        assert_eq!(PaxosFlags::default().apply(options), ReplicaOptions::default());
        assert_eq!(flags.first_given(), Some("--fail-acceptors"));
        assert_eq!(PaxosFlags::default().first_given(), None);
        assert!(PaxosFlags { fail_roles: None, fail_acceptors: None, ..flags }.check().is_err());
    }
}
