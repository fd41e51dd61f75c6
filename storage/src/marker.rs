//! The file that keeps a directory from being served: a repair of it is not done, or could not save
//! everything. Only [`crate::repair`] writes it.

use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::vfs::{OpenMode, Vfs};

/// Its name. Its text is for people, but for the first line.
pub(crate) const NAME: &str = "REPAIR";

pub(crate) const NAME_TEMPORARY: &str = "REPAIR.new";

/// What its first line begins with while a repair is not done.
pub(crate) const UNFINISHED: &str = "unfinished";

/// More is not read of it.
const BYTES_MAX: usize = 1 << 20;

/// What it says, if it is there.
pub(crate) fn read(vfs: &dyn Vfs, dir: &Path) -> Result<Option<String>> {
    let path = dir.join(NAME);
    let file = match vfs.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    let mut bytes = vec![0; BYTES_MAX];
    let count = file.read_at(&mut bytes, 0).map_err(Error::io("read", &path))?;
    bytes.truncate(count);
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Refuses a directory in which it is, whatever it says.
pub(crate) fn refuse(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    let why = match read(vfs, dir)? {
        None => return Ok(()),
        Some(text) if text.starts_with(UNFINISHED) => "a repair of it was broken off",
        Some(_) => "a repair of it could not save everything",
    };
    Err(Error::Incomplete { file: dir.join(NAME), why })
}
