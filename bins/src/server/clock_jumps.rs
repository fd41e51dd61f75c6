//! A clock that jumps on command, for tests: nobody but root may set a machine's clock, and a node
//! does not even read that one.
//!
//! The control file holds by how many milliseconds the node's clock is to be wrong, with a sign.
//! Whenever that has changed, the clock jumps, and a byte is added to a file beside the control
//! file, so that whoever wrote it can prove the jump.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use kvorum_node::Handle;

/// How often the file is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A clock that can fall has to have come from somewhere: without a jump it shows a day too much.
const HEADROOM_MILLIS: i64 = 24 * 3600 * 1000;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// Lets the node's clock be as wrong as the file says, until the node has ended.
pub(super) fn follow<M: Send + 'static>(control: &Path, handle: Handle<M>) -> io::Result<()> {
    let mut jumps = OpenOptions::new().create(true).append(true).open(jumps(control))?;
    let control = control.to_owned();
    let mut wrong_by = read(&control).unwrap_or(0);
    set(&handle, wrong_by);
    let follow = move || {
        while !handle.is_closed() {
            thread::sleep(POLL);
            match read(&control) {
                Some(wanted) if wanted != wrong_by => {
                    wrong_by = wanted;
                    set(&handle, wanted);
                    tracing::warn!(wrong_by, "for a test, the clock has jumped");
                    // Whoever counts finds one less: it errs on the side of too little proof.
                    let _ = jumps.write_all(b".");
                }
                Some(_) | None => {}
            }
        }
    };
    thread::Builder::new().name("clock".to_owned()).spawn(follow).map(drop)
}

fn jumps(control: &Path) -> PathBuf {
    let mut name = control.as_os_str().to_owned();
    name.push(".jumps");
    name.into()
}

/// A file that is being written, or is not there, says nothing.
fn read(control: &Path) -> Option<i64> {
    fs::read_to_string(control).ok()?.strip_suffix('\n')?.parse().ok()
}

fn set<M>(handle: &Handle<M>, millis: i64) {
    let millis = HEADROOM_MILLIS.saturating_add(millis);
    handle.set_clock_error(millis.saturating_mul(NANOS_PER_MILLI));
}
