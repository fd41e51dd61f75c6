//! `demo`: a whole cluster on loopback, and a tour of what it does when things go well and when
//! they do not.
//!
//! The tour prints what it observes, and checks it: it ends with an error at the first observation
//! that is not what it must be. So it is the system's smoke test as well as its introduction.

mod everyday;
mod failures;
mod guide;
mod stage;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use kvorum::cluster::Member;
use kvorum_replication::Protocol;

use crate::arguments::Global;
use crate::conflicts::OnConflict;
use crate::error::CommandError;
use crate::fresh;
use crate::output::{Format, Output};
use crate::shell;
use guide::{Guide, Trouble};
use stage::Stage;

/// Replicas of the tour's cluster.
const REPLICAS: u32 = 3;

/// The exit code if the cluster did not do what it must.
const WRONG: u8 = 1;

/// Start a whole cluster on this machine and show what it does
///
/// A coordinator and three replicas, each a process of its own with its own data; then writes,
/// conflicts, transactions and failures. With a terminal it ends in a shell. When it ends, the
/// processes end with it.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Exit codes: 0 if everything was as it must be, 1 if not, 4 if the cluster could not be started.

Examples:
  kvorum demo
  kvorum demo --data-dir demo-data          and look at the data afterwards
  kvorum --output json demo | jq .observed")]
pub(crate) struct Demo {
    /// Keep data and logs in this directory, which is new or empty; else they are removed at the end
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Runs the tour, and the shell if there is a terminal.
pub(crate) async fn demo(
    global: &Global,
    output: &mut Output,
    demo: Demo,
) -> Result<ExitCode, CommandError> {
    let cluster = fresh::cluster(Protocol::TwoPhase, REPLICAS, demo.data_dir)?;
    let mut stage = Stage::new(cluster, global.timeout);
    stage.set_flags();
    let mut guide = Guide::new(output);
    match tour(&mut stage, &mut guide).await {
        Ok(()) => {}
        Err(Trouble::Wrong) => {
            for member in stage.cluster.members() {
                output.note(&stage.cluster.log_tail(member))?;
            }
            return Ok(ExitCode::from(WRONG));
        }
        Err(Trouble::Command(error)) => return Err(error),
    }
    if output.format == Format::Text && io::stdin().is_terminal() && output.is_terminal() {
        let address = stage.cluster.address(Member::Coordinator).to_string();
        return shell::shell(
            &Global { connect: vec![address], ..global.clone() },
            OnConflict::Fail,
            output,
        )
        .await;
    }
    Ok(ExitCode::SUCCESS)
}

async fn tour(stage: &mut Stage, guide: &mut Guide<'_>) -> Result<(), Trouble> {
    everyday::start(stage, guide).await?;
    everyday::put_get_delete(stage, guide).await?;
    everyday::conflict(stage, guide).await?;
    everyday::transaction(stage, guide).await?;
    failures::replica_killed(stage, guide).await?;
    failures::coordinator_undecided(stage, guide).await?;
    failures::coordinator_decided(stage, guide).await?;
    failures::all_killed(stage, guide).await?;
    guide.end()
}
