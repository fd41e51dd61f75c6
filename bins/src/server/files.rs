//! How many files and connections a process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Files that a node keeps for itself: log, segments, links to others. Connections never take these,
/// or the log could fail for want of one.
const RESERVED: u64 = 1024;

/// Raises the limit of open files as far as the system lets us, and says how many connections there
/// may be then: as many as are wanted, if they fit.
pub(super) fn make_room(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    let files = match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            before
        }
    };
    // No limit at all is none.
    let Some(files) = files else { return wanted };
    let connections = connections(wanted, files);
    if connections < wanted {
        tracing::warn!(
            files,
            wanted,
            connections,
            "the limit of open files allows fewer connections: raise it (ulimit -n, LimitNOFILE=)"
        );
    }
    connections
}

/// What fits beside the files of the node; with very few files half of them.
fn connections(wanted: usize, files: u64) -> usize {
    let fit = files.saturating_sub(RESERVED).max(files / 2).max(1);
    usize::try_from(fit).map_or(wanted, |fit| wanted.min(fit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_to_the_node() {
        let cases =
            [(10_000, 20_000, 10_000), (16_384, 4096, 3072), (100, 256, 100), (500, 256, 128)];
        for (wanted, files, expected) in cases {
            assert_eq!(connections(wanted, files), expected, "{wanted} of {files}");
        }
    }
}
