//! Saves what can be saved of a damaged directory.

/// The file that keeps a repaired directory from being served: a repair is not done, or could not
/// save everything. It says in words what is lost.
pub(crate) const MARKER: &str = "REPAIR";

/// What begins the names of directories in which a repair keeps what it has replaced.
const KEPT_PREFIX: &str = "lost-";

/// Whether a name is that of such a directory.
pub(crate) fn is_kept(name: &str) -> bool {
    name.strip_prefix(KEPT_PREFIX).is_some_and(|number| number.parse::<u32>().is_ok())
}
