//! Opens a store, writes, reads, and looks at a moment of the past.
//!
//! `cargo run -p kvorum-storage --example quickstart [DIRECTORY]`

use std::path::{Path, PathBuf};

use kvorum_storage::{Batch, Durability, Maintenance, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let dir = std::env::args_os().nth(1).map_or(temporary.path().join("store"), PathBuf::from);
    run(&dir)
}

fn run(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let store = Options::new().open(dir)?;
    // Threads that flush and compact, for as long as this lives.
    let maintenance = Maintenance::start(&store, 1)?;

    store.put("fruit/apple", "red", Durability::Sync)?;
    let before = store.snapshot();

    // All of a batch, or nothing, for readers and for a crash.
    let mut batch = Batch::new();
    batch.put("fruit/banana", "yellow").put("fruit/cherry", "dark red").delete("fruit/apple");
    store.write(batch, Durability::Sync)?;

    assert_eq!(store.get(b"fruit/apple")?, None);
    assert_eq!(before.get(b"fruit/apple")?.as_deref(), Some(&b"red"[..]));
    for entry in store.scan_prefix("fruit/")? {
        let (key, value) = entry?;
        println!("{} is {}", key.escape_ascii(), value.escape_ascii());
    }

    // What is open is closed by dropping the last handle; nothing needs to be flushed for that.
    maintenance.stop();
    drop((before, store));
    let again = Options::new().create_if_missing(false).open(dir)?;
    assert_eq!(again.get(b"fruit/banana")?.as_deref(), Some(&b"yellow"[..]));
    println!("\n{}", again.stats());
    Ok(())
}

#[test]
fn it_runs() -> Result<(), Box<dyn std::error::Error>> {
    run(tempfile::tempdir()?.path())
}
