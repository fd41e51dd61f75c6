//! Loads sorted rows as segments, and the same rows by batches, and compares what that costs.
//!
//! `cargo run --release -p kvorum-storage --example bulk_load [ROWS]`

use std::time::Instant;

use kvorum_storage::{Batch, Durability, Maintenance, Options};

/// Rows of one batch.
const BATCH_ROWS: u64 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(std::env::args().nth(1).map_or(Ok(50_000), |rows| rows.parse())?)
}

fn run(rows: u64) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let row = |number: u64| (number.to_be_bytes(), [b'v'; 100]);

    let loaded = Options::new().open(dir.path().join("loaded"))?;
    let begun = Instant::now();
    let ingested = loaded.ingest((0..rows).map(row))?;
    println!("{} rows ingested in {:?}: {ingested:?}", ingested.rows, begun.elapsed());

    let written = Options::new().open(dir.path().join("written"))?;
    let maintenance = Maintenance::start(&written, 1)?;
    let begun = Instant::now();
    for first in (0..rows).step_by(usize::try_from(BATCH_ROWS)?) {
        let mut batch = Batch::new();
        for number in first..rows.min(first + BATCH_ROWS) {
            let (key, value) = row(number);
            batch.put(key, value);
        }
        written.write(batch, Durability::Buffered)?;
    }
    written.flush()?;
    println!("{rows} rows in batches in {:?}", begun.elapsed());
    maintenance.stop();

    // What was ingested is over what was there, and under what comes.
    loaded.put(row(7).0, "newer", Durability::Sync)?;
    assert_eq!(loaded.get(&row(7).0)?.as_deref(), Some(&b"newer"[..]));
    assert_eq!(loaded.get(&row(8).0)?, written.get(&row(8).0)?);

    // Rows that do not come in order are refused by name, and leave nothing behind.
    let error = loaded.ingest([("b", "1"), ("a", "2")]).expect_err("a is not above b");
    println!("refused: {error}");
    println!("\n{}", loaded.stats());
    Ok(())
}

#[test]
fn it_runs() -> Result<(), Box<dyn std::error::Error>> {
    run(20_000)
}
