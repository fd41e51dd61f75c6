//! Two processes and one directory.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use kvorum_storage::vfs::RealVfs;
use kvorum_storage::{Durability, Error, Options, Store};

/// A process opens the store while this one wants to as well: the second is refused, by name. When
/// the first has died, the store is free, with what it had written.
///
/// # Errors
/// If it is otherwise.
pub fn try_held(program: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut process = Command::new(program)
        .arg("hold-child")
        .arg("--dir")
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = process.stdout.take().context("its output was taken")?;
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line.trim() == "held", "it says {line:?}");
    let refused = open(dir.path());
    process.kill()?;
    process.wait()?;
    match refused {
        Err(Error::Locked { path }) => ensure!(path.starts_with(dir.path()), "names {path:?}"),
        Err(error) => bail!("refused with {error}"),
        Ok(_) => bail!("two processes have the store open"),
    }
    let store = open(dir.path())?;
    ensure!(store.get(b"key")?.as_deref() == Some(b"value"), "what it had written is gone");
    Ok(())
}

/// Holds a store until its input ends, or it is killed.
///
/// # Errors
/// If it cannot be opened.
pub fn hold(dir: &Path) -> Result<()> {
    let store = open(dir)?;
    store.put("key", "value", Durability::Sync)?;
    println!("held");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn open(dir: &Path) -> kvorum_storage::Result<Store> {
    Store::open(Arc::new(RealVfs), dir, Options::default())
}
