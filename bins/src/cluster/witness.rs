//! Asks the processes of a cluster what they are and what they hold.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use kvorum_replication::{Protocol, Row};
use kvorum_rpc::client::{Client, ClientError, ClientOptions, ProcessStatus};

use super::{Cluster, ClusterError, Member};
use crate::standing::Standing;
use crate::view::Views;

/// Between looks at what is to come true.
const POLL: Duration = Duration::from_millis(2);

/// A process that lives answers within milliseconds, and on a machine that is far too busy within this.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Rows asked for at a time.
const PAGE_ROWS: u32 = 4096;

/// Differing rows that an error shows.
const DIFFERENCES_SHOWN_MAX: usize = 5;

impl Cluster {
    /// A client of one member. Needs a `LocalSet` around it, as every client does.
    ///
    /// # Errors
    /// If the member does not answer.
    pub async fn client(&self, member: Member, timeout: Duration) -> Result<Client, ClusterError> {
        let addresses = [self.address(member).to_string()];
        // There is no other to turn to.
        let options =
            ClientOptions { timeout, connect_timeout: timeout, ..ClientOptions::new(addresses) };
        Client::connect(options).await.map_err(asking(member))
    }

    /// What a member says of itself.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn status(&self, member: Member) -> Result<ProcessStatus, ClusterError> {
        self.await_status(member, ANSWER_WITHIN, |_| true).await
    }

    /// What every member says of itself, in their order.
    ///
    /// # Errors
    /// If one does not answer.
    pub async fn statuses(&self) -> Result<Vec<ProcessStatus>, ClusterError> {
        try_join_all(self.members().map(|member| self.status(member))).await
    }

    /// All rows that a replica holds itself, in the order of the keys.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn rows(&self, member: Member) -> Result<Vec<Row>, ClusterError> {
        let client = self.client(member, ANSWER_WITHIN).await?;
        let (mut rows, mut start) = (Vec::new(), Bytes::new());
        loop {
            let page = client.inspect(start, PAGE_ROWS).await.map_err(asking(member))?;
            rows.extend(page.rows);
            match rows.last() {
                Some((key, _)) if page.more => start = [&key[..], b"\0"].concat().into(),
                _ => return Ok(rows),
            }
        }
    }

    /// All rows of every replica.
    ///
    /// # Errors
    /// If one does not answer.
    pub async fn rows_of_replicas(&self) -> Result<Vec<Vec<Row>>, ClusterError> {
        try_join_all(self.replicas().map(|member| self.rows(member))).await
    }

    /// Waits until a member's status is as asked for.
    ///
    /// # Errors
    /// If it is not in time.
    pub async fn await_status(
        &self,
        member: Member,
        within: Duration,
        is_right: impl Fn(&ProcessStatus) -> bool,
    ) -> Result<ProcessStatus, ClusterError> {
        let client = self.client(member, within).await?;
        let began = Instant::now();
        loop {
            // Who does not answer may be busy.
            let why = match client.status().await {
                Ok(status) if is_right(&status) => return Ok(status),
                Ok(status) => format!("{member} says {status:?}"),
                Err(error) => asking(member)(error).to_string(),
            };
            if began.elapsed() > within {
                return Err(ClusterError::NotSettled { waited: within, why });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until everybody is there for a write: the coordinator has a link to every replica, or
    /// all replicas follow one leader that has a link to each.
    ///
    /// # Errors
    /// If that is not so in time.
    pub async fn await_links(&self, within: Duration) -> Result<(), ClusterError> {
        let all_up = |status: &ProcessStatus| status.members.iter().all(|member| member.up);
        match self.protocol() {
            Protocol::TwoPhase => {
                self.await_status(Member::Coordinator, within, all_up).await.map(drop)
            }
            Protocol::AnyReplica => {
                for member in self.members() {
                    self.await_status(member, within, all_up).await?;
                }
                Ok(())
            }
            Protocol::Paxos => self.await_leader(within).await.map(drop),
        }
    }

    /// Waits until writes need so many replicas, and one that falls silent may be left out.
    ///
    /// # Errors
    /// If that is not so in time.
    pub async fn await_members(&self, count: u64, within: Duration) -> Result<(), ClusterError> {
        let has = |status: &ProcessStatus| {
            Views::of(status).is_some_and(|views| views.founded && views.members == count)
        };
        self.await_status(Member::Coordinator, within, has).await.map(drop)
    }

    /// Waits until all replicas of Multi-Paxos follow one leader, which has a link to each.
    ///
    /// # Errors
    /// If they do not in time.
    pub async fn await_leader(&self, within: Duration) -> Result<Member, ClusterError> {
        let began = Instant::now();
        loop {
            let why = match self.statuses().await {
                Ok(statuses) => match followed(&statuses) {
                    Some(leader) => return Ok(leader),
                    None => {
                        let standing = |it: &ProcessStatus| (it.node, Standing::of(it));
                        let standings: Vec<_> = statuses.iter().map(standing).collect();
                        format!("not all follow one leader: {standings:?}")
                    }
                },
                Err(error) => error.to_string(),
            };
            if began.elapsed() > within {
                return Err(ClusterError::NotSettled { waited: within, why });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until nothing is under way any more and all replicas hold the same, and answers with
    /// what they hold. Nobody may write meanwhile.
    ///
    /// # Errors
    /// If that is not so in time; says what is locked or in doubt, or which rows differ.
    pub async fn settled(&self, within: Duration) -> Result<Vec<Row>, ClusterError> {
        let began = Instant::now();
        loop {
            let why = match self.look().await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(why)) => why,
                Err(error) => error.to_string(),
            };
            if began.elapsed() > within {
                return Err(ClusterError::NotSettled { waited: within, why });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What all replicas hold, or why that cannot be said.
    async fn look(&self) -> Result<Result<Vec<Row>, String>, ClusterError> {
        match self.unsettled().await? {
            None => Ok(agreed(self.rows_of_replicas().await?)),
            Some(why) => Ok(Err(why)),
        }
    }

    /// What is still under way, if anything is.
    async fn unsettled(&self) -> Result<Option<String>, ClusterError> {
        let statuses = self.statuses().await?;
        let busy = statuses.iter().filter(|status| {
            let ProcessStatus { in_flight, in_doubt, locks, .. } = status;
            (*in_flight, *in_doubt, *locks) != (0, 0, 0)
        });
        let busy = busy.map(|status| {
            let ProcessStatus { role, node, in_flight, in_doubt, locks, .. } = status;
            format!("{role} {node}: {in_flight} in flight, {in_doubt} in doubt, {locks} locks")
        });
        let busy: Vec<_> = busy.collect();
        Ok((!busy.is_empty()).then(|| busy.join("; ")))
    }
}

/// The leader that all follow, if it has a link to each.
fn followed(statuses: &[ProcessStatus]) -> Option<Member> {
    let standings = || statuses.iter().map(|status| Some((status.node, Standing::of(status)?)));
    let (leader, _) = Standing::leader(standings().flatten())?;
    let all_follow = standings()
        .all(|standing| standing.is_some_and(|(_, standing)| standing.leader == Some(leader)));
    let status = statuses.iter().find(|status| status.node == leader)?;
    let is_linked = status.members.iter().all(|member| member.up);
    (all_follow && is_linked).then_some(Member::Replica(leader))
}

/// The rows of one replica, if those of all are the same; else some that are not.
fn agreed(mut replicas: Vec<Vec<Row>>) -> Result<Vec<Row>, String> {
    let first = replicas.swap_remove(0);
    let Some(other) = replicas.iter().find(|other| **other != first) else { return Ok(first) };
    let only_in = |a: &[Row], b: &[Row]| -> String {
        let only = a.iter().filter(|row| b.binary_search_by(|other| other.cmp(row)).is_err());
        let only = only.take(DIFFERENCES_SHOWN_MAX);
        only.map(|(key, value)| format!("{key:?} = {value:?}")).collect::<Vec<_>>().join(", ")
    };
    let (here, there) = (only_in(&first, other), only_in(other, &first));
    let counts = (first.len(), other.len());
    Err(format!(
        "two replicas differ: {counts:?} rows; only in one [{here}], in the other [{there}]"
    ))
}

fn asking(member: Member) -> impl FnOnce(ClientError) -> ClusterError {
    move |source| ClusterError::Client { member, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_replicas_are_told_apart() {
        let row = |key: &'static str, value: &'static str| (key.into(), value.into());
        let all = vec![row("a", "1"), row("b", "2"), row("c", "3")];
        assert_eq!(agreed(vec![all.clone(), all.clone(), all.clone()]), Ok(all.clone()));
        let other = vec![row("a", "1"), row("b", "other"), row("d", "4")];
        let why = agreed(vec![all.clone(), all, other]).unwrap_err();
        for (text, is_in) in
            [("b\" = b\"2", true), ("other", true), ("c\"", true), ("d\"", true), ("a\"", false)]
        {
            assert_eq!(why.contains(text), is_in, "{text}: {why}");
        }
    }
}
