//! Every dependency earns its place in a line of docs/dependencies.md.

use std::collections::BTreeSet;

use super::tree::Tree;
use super::workspace::Workspace;
use super::{Finding, finding};

const PAGE: &str = "docs/dependencies.md";

/// Dependencies that the page does not name, names on the page that nothing depends on, and
/// versions in the workspace's manifest that no crate asks for.
pub(super) fn check(workspace: &Workspace, tree: &Tree) -> Vec<Finding> {
    let Some(page) = tree.text(PAGE) else {
        return vec![finding(PAGE, 0, "is missing: it says why each dependency is there")];
    };
    let dependencies = workspace.crates.iter().flat_map(|package| &package.dependencies);
    let used: BTreeSet<&str> = dependencies
        .filter(|dependency| !dependency.ours)
        .map(|dependency| dependency.name.as_str())
        .collect();
    let offered = tree.text("Cargo.toml").map(offered).unwrap_or_default();
    let named: BTreeSet<&str> = page.lines().filter_map(named_in_row).collect();
    let missing = used.difference(&named).map(|name| format!("{name} is used and not named"));
    let idle = named.difference(&used).map(|name| format!("{name} is named and not used"));
    let left = offered.difference(&used).map(|name| format!("no crate depends on {name}"));
    let page = missing.chain(idle).map(|message| finding(PAGE, 0, message));
    page.chain(left.map(|message| finding("Cargo.toml", 0, message))).collect()
}

/// The names under `[workspace.dependencies]` that are not our own.
fn offered(manifest: &str) -> BTreeSet<&str> {
    let section = manifest.split("\n[").find(|part| part.starts_with("workspace.dependencies]"));
    let lines = section.into_iter().flat_map(|section| section.lines().skip(1));
    let names =
        lines.filter(|line| !line.contains("path = ")).filter_map(|line| line.split_once(" = "));
    names.map(|(name, _)| name).collect()
}

/// The dependency that a table's row speaks of: the name in backticks in its first cell.
fn named_in_row(line: &str) -> Option<&str> {
    let (name, reason) = line.strip_prefix("| `")?.split_once("` |")?;
    (!reason.trim_matches([' ', '|']).is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::super::workspace::{Dependency, Package};
    use super::*;

    fn check_page(page: &str) -> Vec<String> {
        check_both(page, "bytes = \"1\"\n")
    }

    fn check_both(page: &str, offered: &str) -> Vec<String> {
        let dependency = |name: &str, ours, dev| Dependency { name: name.to_owned(), ours, dev };
        let package = Package {
            name: "kvorum-node".to_owned(),
            folder: "node".to_owned(),
            dependencies: vec![
                dependency("kvorum-storage", true, false),
                dependency("bytes", false, false),
                dependency("tempfile", false, true),
            ],
        };
        let manifest = format!(
            "[workspace]\n\n[workspace.dependencies]\nkvorum-a = {{ path = \"a\" }}\n{offered}\n\
             [profile.dev]\nopt-level = 1\n"
        );
        let tree = Tree::of(&[(PAGE, page), ("Cargo.toml", &manifest)]);
        let findings = check(&Workspace { crates: vec![package] }, &tree);
        findings.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_dependency_without_a_line_is_found() {
        assert_eq!(check_page("| `bytes` | values |\n| `tempfile` | tests |\n"), [""; 0]);
        assert_eq!(check_page("| `bytes` | values |\n"), ["tempfile is used and not named"]);
        let no_reason = "| `bytes` | |\n| `tempfile` | tests |\n";
        assert_eq!(check_page(no_reason), ["bytes is used and not named"]);
    }

    #[test]
    fn a_line_without_a_dependency_is_found() {
        let page = "| `bytes` | values |\n| `tempfile` | tests |\n| `rand` | chance |\n";
        assert_eq!(check_page(page), ["rand is named and not used"]);
    }

    #[test]
    fn a_version_that_no_crate_asks_for_is_found() {
        let page = "| `bytes` | values |\n| `tempfile` | tests |\n";
        assert_eq!(check_both(page, "rand = \"1\"\n"), ["no crate depends on rand"]);
    }

    #[test]
    fn a_missing_page_is_found() {
        let findings = check(&Workspace::default(), &Tree::of(&[("README.md", "")]));
        assert_eq!(findings.len(), 1);
    }
}
