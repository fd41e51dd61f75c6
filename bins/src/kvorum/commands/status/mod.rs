//! `status`.

mod paxos;
mod two_phase;

use comfy_table::{CellAlignment, Table, presets};
use kvorum_rpc::client::{Client, ProcessStatus};
use serde_json::{Value as Json, json};

use crate::arguments::{Global, Status};
use crate::error::CommandError;
use crate::members::{Member, ask_all};
use crate::output::{Format, Output};

/// Shows each process of the cluster.
pub(crate) async fn status(
    client: &Client,
    output: &mut Output,
    global: &Global,
    arguments: &Status,
) -> Result<(), CommandError> {
    let members = ask_all(client, global).await?;
    let replicas = paxos::Replicas::of(&members);
    let standings = two_phase::Standings::of(&members);
    match output.format {
        Format::Text => {
            let table = replicas
                .as_ref()
                .map_or_else(|| standings.table(&members), |replicas| replicas.table(&members));
            output.line(table.trim_fmt())?;
            for member in &members {
                explain(output, member, arguments.counters)?;
            }
            let words = replicas.map_or_else(
                || standings.words(&members),
                |replicas| Some(replicas.words(&members)),
            );
            words.map_or(Ok(()), |words| output.line(format!("\n{words}")))
        }
        Format::Json => {
            let cluster = members.iter().find_map(|member| match &member.answer {
                Ok((_, status)) if !status.cluster.is_empty() => Some(status.cluster.clone()),
                _ => None,
            });
            let processes: Vec<Json> = members.iter().map(json_of).collect();
            let asked = client.address();
            let mut status = json!({
                "protocol": "2pc", "cluster": cluster, "asked": asked, "processes": processes,
            });
            match replicas {
                Some(replicas) => replicas.add_to(&mut status),
                None => standings.add_to(&mut status),
            }
            output.json(&status)
        }
    }
}

/// A table with these columns, some of them numbers, and a row for each member.
fn table<const N: usize>(
    members: &[Member],
    header: [&str; N],
    numbers: &[usize],
    row: impl Fn(&Member) -> [String; N],
) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for member in members {
        table.add_row(row(member));
    }
    for index in numbers {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The row of a process that did not answer: its first four cells, and nothing behind.
fn row_of_absent<const N: usize>(member: &Member) -> [String; N] {
    let known = [
        member.role().to_owned(),
        member.node.to_string(),
        member.address.clone(),
        "down".to_owned(),
    ];
    let mut known = known.into_iter();
    std::array::from_fn(|_| known.next().unwrap_or_else(|| "-".to_owned()))
}

fn log(status: &ProcessStatus) -> String {
    match (status.log_last, status.log_durable) {
        (last, durable) if last == durable => last.to_string(),
        (last, durable) => format!("{last} ({durable} synced)"),
    }
}

/// A time in its two largest units.
fn uptime(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}.{}s", millis % 1000 / 100),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Below the table: why a process counts as down, and the counters of one that is up.
fn explain(output: &mut Output, member: &Member, counters: bool) -> Result<(), CommandError> {
    let who = format!("{} {} at {}", member.role(), member.node, member.address);
    match &member.answer {
        Err(error) => output.line(format!("\n{who} is down: {}", error.what)),
        Ok((_, status)) if counters => {
            output.line(format!("\n{who}"))?;
            for (name, value) in &status.counters {
                output.line(format!("  {value:>12}  {name}"))?;
            }
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

fn json_of(member: &Member) -> Json {
    let (id, address) = (member.node, &member.address);
    match &member.answer {
        Err(error) => json!({
            "role": member.role(), "id": id, "address": address, "up": false, "error": error.what,
        }),
        Ok((_, status)) => json!({
            "role": status.role,
            "id": id,
            "address": address,
            "up": true,
            "version": status.version,
            "cluster": status.cluster,
            "incarnation": status.incarnation,
            "log_last": status.log_last,
            "log_durable": status.log_durable,
            "in_flight": status.in_flight,
            "in_doubt": status.in_doubt,
            "locks": status.locks,
            "uptime_millis": status.uptime_millis,
            "links": links(status),
            "counters": counters_of(status),
        }),
    }
}

/// Which others it has a link to.
fn links(status: &ProcessStatus) -> Json {
    let others = status.members.iter().filter(|member| member.node != status.node);
    others.map(|member| json!({"id": member.node, "up": member.up})).collect()
}

fn counters_of(status: &ProcessStatus) -> Json {
    status.counters.iter().map(|(name, value)| (name.clone(), Json::from(*value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let cases = [
            (0, "0.0s"),
            (59_999, "59.9s"),
            (60_000, "1m 0s"),
            (3_599_999, "59m 59s"),
            (3_660_000, "1h 1m"),
            (90_000_000, "1d 1h"),
        ];
        for (millis, text) in cases {
            assert_eq!(uptime(millis), text);
        }
    }
}
