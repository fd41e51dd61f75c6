//! How the suites write down what they counted.

use std::collections::BTreeMap;
use std::fmt;

use kvorum_storage::vfs::Operation;

/// How often each operation was struck: in all, and one by one.
pub(super) fn by_operation(struck: &BTreeMap<Operation, u64>) -> (u64, String) {
    let each: Vec<String> =
        struck.iter().map(|(operation, count)| format!("{operation:?} {count}")).collect();
    (struck.values().sum(), each.join(", "))
}

/// Their number, and a line for each.
pub(super) fn write_violations(f: &mut fmt::Formatter<'_>, violations: &[String]) -> fmt::Result {
    write!(f, "  {} violations", violations.len())?;
    for violation in violations {
        write!(f, "\n  VIOLATION {violation}")?;
    }
    Ok(())
}
