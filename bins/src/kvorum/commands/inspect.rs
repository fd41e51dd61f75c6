//! `inspect`: the replicas' rows side by side.
//!
//! All replicas are walked together in the order of the keys, a page of each in memory at a time,
//! so that any amount of data is compared row by row, and not only by digest.

use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt as _;

use bytes::Bytes;
use comfy_table::{CellAlignment, Table, presets};
use futures::future::join_all;
use kvorum_replication::Row;
use kvorum_rpc::client::{Client, ErrorKind};
use serde_json::{Map, Value as Json, json};

use crate::arguments::{Global, Inspect};
use crate::error::{CommandError, Kind};
use crate::members::{Member, ask_all};
use crate::output::{Format, Output};
use crate::pages::after;
use crate::text::{cell, set_field};

/// Rows asked for at a time.
const PAGE_ROWS: u32 = 1024;

/// Rows that differ which are shown although `--limit` would not reach them.
const DIFFERENCES_SHOWN_MAX: usize = 10;

/// Characters of a key and of a value in a table.
const KEY_CHARS_MAX: usize = 40;
const VALUE_CHARS_MAX: usize = 24;

/// Shows what each replica holds, and whether all hold the same.
pub(crate) async fn inspect(
    client: &Client,
    output: &mut Output,
    global: &Global,
    arguments: &Inspect,
) -> Result<(), CommandError> {
    let members = ask_all(client, global).await?;
    let prefix = Bytes::copy_from_slice(arguments.prefix.as_bytes());
    let replicas = members.into_iter().filter(Member::is_replica);
    let cursors = replicas.map(|member| Cursor::new(member, prefix.clone())).collect();
    let mut comparison = Comparison { cursors, keys: 0, unequal: 0, shown: Vec::new() };
    while comparison.advance(arguments.limit).await {}
    match output.format {
        Format::Text => comparison.print(output)?,
        Format::Json => output.json(&comparison.json())?,
    }
    comparison.corruption().map_or(Ok(()), Err)
}

/// The walk over one replica's rows.
struct Cursor {
    node: u32,
    address: String,
    prefix: Bytes,
    source: Result<Client, CommandError>,
    buffered: VecDeque<Row>,
    /// Where the next page starts; `None` behind the last.
    next: Option<Bytes>,
    keys: u64,
    bytes: u64,
    digest: Digest,
}

impl Cursor {
    fn new(member: Member, prefix: Bytes) -> Self {
        Self {
            node: member.node,
            address: member.address,
            next: Some(prefix.clone()),
            prefix,
            source: member.answer.map(|(client, _)| client),
            buffered: VecDeque::new(),
            keys: 0,
            bytes: 0,
            digest: Digest::default(),
        }
    }

    /// Fetches a page if the last one is used up.
    async fn fill(&mut self) {
        let (Ok(client), Some(start), true) = (&self.source, &self.next, self.buffered.is_empty())
        else {
            return;
        };
        match client.inspect(start.clone(), PAGE_ROWS).await {
            Ok(page) => {
                let last = page.rows.last().map(|(key, _)| after(key));
                self.next = last.filter(|next| page.more && next.starts_with(&self.prefix));
                let prefix = &self.prefix;
                let rows = page.rows.into_iter().take_while(|(key, _)| key.starts_with(prefix));
                self.buffered = rows.collect();
            }
            Err(error) => self.source = Err(error.into()),
        }
    }

    /// Takes its row if it is the one of this key.
    fn take(&mut self, key: &Bytes) -> Option<Bytes> {
        let row = self.buffered.pop_front_if(|(front, _)| front == key);
        let (key, value) = row?;
        self.keys += 1;
        self.bytes += (key.len() + value.len()) as u64;
        self.digest.add(&key);
        self.digest.add(&value);
        Some(value)
    }
}

/// A row as each replica holds it, in the order of the cursors.
struct ComparedRow {
    key: Bytes,
    values: Vec<Option<Bytes>>,
    equal: bool,
}

struct Comparison {
    cursors: Vec<Cursor>,
    /// Different keys seen.
    keys: usize,
    /// Keys whose values are not the same on all replicas that answered.
    unequal: usize,
    /// The first rows, and the first that differ.
    shown: Vec<ComparedRow>,
}

impl Comparison {
    /// Compares the next key; false if there is none.
    async fn advance(&mut self, limit: usize) -> bool {
        join_all(self.cursors.iter_mut().map(Cursor::fill)).await;
        let fronts = self.cursors.iter().filter_map(|cursor| cursor.buffered.front());
        let Some(key) = fronts.map(|(key, _)| key).min().cloned() else {
            return false;
        };
        let values: Vec<Option<Bytes>> =
            self.cursors.iter_mut().map(|cursor| cursor.take(&key)).collect();
        let answered = self.cursors.iter().zip(&values).filter(|(cursor, _)| cursor.source.is_ok());
        let mut answered = answered.map(|(_, value)| value);
        let first = answered.next();
        let equal = answered.all(|value| Some(value) == first);
        let is_shown = self.keys < limit || !equal && self.unequal < DIFFERENCES_SHOWN_MAX;
        self.keys += 1;
        self.unequal += usize::from(!equal);
        if is_shown {
            self.shown.push(ComparedRow { key, values, equal });
        }
        true
    }

    /// Whether every replica answered to the end, and all hold the same.
    fn equal(&self) -> bool {
        let all_answered = self.cursors.iter().all(|cursor| cursor.source.is_ok());
        !self.cursors.is_empty() && all_answered && self.unequal == 0
    }

    /// A replica that could not read its own data.
    fn corruption(&self) -> Option<CommandError> {
        let errors = self.cursors.iter().filter_map(|cursor| {
            let error = cursor.source.as_ref().err()?;
            let who = format!("replica {} at {}", cursor.node, cursor.address);
            Some(CommandError { what: format!("{who}: {}", error.what), ..error.clone() })
        });
        errors.into_iter().find(|error| error.kind == Kind::Cluster(ErrorKind::Corrupt))
    }

    fn print(&self, output: &mut Output) -> Result<(), CommandError> {
        if !self.shown.is_empty() {
            output.line(self.rows().trim_fmt())?;
            let hidden = self.keys - self.shown.len();
            if hidden > 0 {
                output.line(format!(" ... and {hidden} more"))?;
            }
            output.line("")?;
        }
        output.line(self.replicas().trim_fmt())?;
        for cursor in &self.cursors {
            if let Err(error) = &cursor.source {
                let (node, address) = (cursor.node, &cursor.address);
                output.line(format!("\nreplica {node} at {address} is down: {}", error.what))?;
            }
        }
        let unequal = match self.unequal {
            0 => String::new(),
            1 => " (1 key differs)".to_owned(),
            many => format!(" ({many} keys differ)"),
        };
        output.line(format!("\nequal: {}{unequal}", self.equal()))
    }

    fn rows(&self) -> Table {
        let mut table = Table::new();
        let replicas = self.cursors.iter().map(|cursor| format!("REPLICA {}", cursor.node));
        let header = std::iter::once("KEY".to_owned()).chain(replicas);
        table.load_style(presets::NOTHING).set_header(header.collect::<Vec<_>>());
        for row in &self.shown {
            let values = self.cursors.iter().zip(&row.values).map(|(cursor, value)| {
                match (&cursor.source, value) {
                    (_, Some(value)) => cell(value, VALUE_CHARS_MAX),
                    (Ok(_), None) => "(none)".to_owned(),
                    (Err(_), None) => "?".to_owned(),
                }
            });
            let mut cells = vec![cell(&row.key, KEY_CHARS_MAX)];
            cells.extend(values);
            if !row.equal {
                cells.push("differs".to_owned());
            }
            table.add_row(cells);
        }
        table
    }

    fn replicas(&self) -> Table {
        let mut table = Table::new();
        let header = ["REPLICA", "ADDRESS", "STATE", "KEYS", "BYTES", "DIGEST"];
        table.load_style(presets::NOTHING).set_header(header);
        for cursor in &self.cursors {
            let (node, address) = (cursor.node.to_string(), cursor.address.clone());
            let nothing = || "-".to_owned();
            table.add_row(match cursor.source {
                Ok(_) => [
                    node,
                    address,
                    "up".to_owned(),
                    cursor.keys.to_string(),
                    cursor.bytes.to_string(),
                    cursor.digest.to_string(),
                ],
                Err(_) => [node, address, "down".to_owned(), nothing(), nothing(), nothing()],
            });
        }
        for index in [0, 3, 4] {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    fn json(&self) -> Json {
        let replicas: Vec<Json> = self.cursors.iter().map(replica_json).collect();
        let rows: Vec<Json> = self.shown.iter().map(|row| self.row_json(row)).collect();
        json!({
            "equal": self.equal(),
            "keys": self.keys,
            "unequal_keys": self.unequal,
            "replicas": replicas,
            "rows": rows,
        })
    }

    fn row_json(&self, row: &ComparedRow) -> Json {
        let mut object = Map::new();
        set_field(&mut object, "key", &row.key);
        object.insert("equal".to_owned(), Json::from(row.equal));
        let held = self.cursors.iter().zip(&row.values).filter_map(|(cursor, value)| {
            let mut held = Map::from_iter([("id".to_owned(), Json::from(cursor.node))]);
            set_field(&mut held, "value", value.as_ref()?);
            Some(Json::Object(held))
        });
        object.insert("held_by".to_owned(), held.collect());
        Json::Object(object)
    }
}

fn replica_json(cursor: &Cursor) -> Json {
    let (id, address) = (cursor.node, &cursor.address);
    match &cursor.source {
        Err(error) => json!({"id": id, "address": address, "up": false, "error": error.what}),
        Ok(_) => json!({
            "id": id,
            "address": address,
            "up": true,
            "keys": cursor.keys,
            "bytes": cursor.bytes,
            "digest": cursor.digest.to_string(),
        }),
    }
}

/// FNV-1a over length and bytes of each field: a short name for a replica's content, by which
/// people compare two of them. Whether they are equal is found out by comparing the rows.
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn add(&mut self, field: &[u8]) {
        let length = (field.len() as u64).to_le_bytes();
        for byte in length.iter().chain(field) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(fields: &[&[u8]]) -> String {
        let mut digest = Digest::default();
        fields.iter().for_each(|field| digest.add(field));
        digest.to_string()
    }

    #[test]
    fn digests_tell_rows_apart() {
        assert_eq!(digest(&[b"a", b"1"]), digest(&[b"a", b"1"]));
        assert_ne!(digest(&[b"a", b"1"]), digest(&[b"a1", b""]));
        assert_ne!(digest(&[b"a", b"1"]), digest(&[b"a", b"2"]));
        assert_ne!(digest(&[]), digest(&[b""]));
    }
}
