//! A replica that comes back with another disk than its own is not taken for itself.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kvorum::cluster::{Cluster, Member};
use kvorum_replication::Happened;
use kvorum_rpc::client::{Client, ErrorKind};
use kvorum_tests::{PATIENCE, cluster, program, run};

const REPLICA: Member = Member::Replica(1);

/// Between looks at a log.
const POLL: Duration = Duration::from_millis(5);

/// Often enough that a random replica is each of the three.
const READS: u32 = 60;

async fn cluster_with(value: &'static str) -> Result<(Cluster, Client)> {
    let cluster = cluster(program(Path::new(env!("CARGO_BIN_EXE_kvorum-tests")))).await?;
    let client = cluster.client(Member::Coordinator, PATIENCE).await?;
    client.put("key".into(), value.into()).await?;
    cluster.settled(PATIENCE).await?;
    Ok((cluster, client))
}

/// The replica is not listened to, as the coordinator says in these words: writes miss it, and no
/// read ever reaches it.
async fn check_left_out(
    cluster: &Cluster,
    client: &Client,
    value: &'static str,
    words: &str,
) -> Result<()> {
    let began = Instant::now();
    while !cluster.log_tail(Member::Coordinator).contains(words) {
        ensure!(began.elapsed() < PATIENCE, "{}", cluster.log_tail(Member::Coordinator));
        tokio::time::sleep(POLL).await;
    }
    let refused = client.put("key".into(), "more".into()).await.expect_err("a replica is missing");
    ensure!(
        (refused.kind, refused.happened) == (ErrorKind::Unavailable, Happened::No),
        "{refused:?}"
    );
    for _ in 0..READS {
        let read = client.get("key".into()).await?;
        ensure!(read == Some(Bytes::from_static(value.as_bytes())), "a read answers {read:?}");
    }
    Ok(())
}

/// With its own disk it is itself again.
async fn check_back(cluster: &mut Cluster, client: &Client) -> Result<()> {
    cluster.start(REPLICA, &[]).await?;
    cluster.await_links(PATIENCE).await?;
    client.put("key".into(), "back".into()).await?;
    let rows = cluster.settled(PATIENCE).await?;
    ensure!(rows == [("key".into(), "back".into())], "{rows:?}");
    Ok(())
}

#[test]
fn an_empty_disk_is_not_taken_for_the_one_that_was_lost() {
    let tried = run(async {
        let (mut cluster, client) = cluster_with("kept").await?;
        let (disk, aside) = (cluster.data_directory(REPLICA), cluster.directory().join("aside"));
        cluster.kill(REPLICA)?;
        fs::rename(&disk, &aside)?;
        cluster.start(REPLICA, &[]).await.context("it cannot know yet that it lost anything")?;
        check_left_out(&cluster, &client, "kept", "its data directory is empty now").await?;
        cluster.kill(REPLICA)?;
        fs::remove_dir_all(&disk)?;
        fs::rename(&aside, &disk)?;
        check_back(&mut cluster, &client).await
    });
    tried.unwrap();
}

#[test]
fn the_disk_of_another_cluster_is_not_taken_for_its_own() {
    let tried = run(async {
        let (mut here, client_here) = cluster_with("here").await?;
        let (mut there, client_there) = cluster_with("there").await?;
        for cluster in [&mut here, &mut there] {
            cluster.kill(REPLICA)?;
        }
        swap(&here.data_directory(REPLICA), &there.data_directory(REPLICA))?;
        for cluster in [&mut here, &mut there] {
            cluster.start(REPLICA, &[]).await?;
        }
        check_left_out(&here, &client_here, "here", "belongs to cluster").await?;
        check_left_out(&there, &client_there, "there", "belongs to cluster").await?;
        for cluster in [&mut here, &mut there] {
            cluster.kill(REPLICA)?;
        }
        swap(&here.data_directory(REPLICA), &there.data_directory(REPLICA))?;
        check_back(&mut here, &client_here).await?;
        check_back(&mut there, &client_there).await
    });
    tried.unwrap();
}

fn swap(one: &Path, other: &Path) -> Result<()> {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside)?;
    fs::rename(other, one)?;
    Ok(fs::rename(&aside, other)?)
}
