//! What no compiler checks: who imports whom, sizes, names, docs and links.
//!
//! ```text
//!   Tree (every file)  ──►  rule: text in, findings out  ──►  file:line: what is wrong, what to do
//! ```
//!
//! Each rule is a function from text to findings, so that its tests can hand it bad input. They all
//! run as the test `the_repository_is_tidy`, and as `cargo xtask tidy`.

use std::fmt;
use std::path::Path;

use anyhow::Result;

mod dependencies;
mod imports;
mod markdown;
mod shape;
mod source;
mod tree;
mod workspace;

use source::Source;
use tree::Tree;
use workspace::Workspace;

/// Something that is not as the project wants it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Relative to the root, with slashes.
    file: String,
    /// From 1; 0 speaks of the whole file.
    line: usize,
    /// What is wrong, and what to do.
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// A finding in this line of this file.
fn finding(file: &str, line: usize, message: impl Into<String>) -> Finding {
    Finding { file: file.to_owned(), line, message: message.into() }
}

/// Prints what is not tidy; false if there is anything.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let tree = Tree::read(root)?;
    let findings = check(root, &tree)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    println!("tidy: {} files, {} findings", tree.files.len(), findings.len());
    Ok(findings.is_empty())
}

/// Runs every rule over the whole tree.
fn check(root: &Path, tree: &Tree) -> Result<Vec<Finding>> {
    let workspace = Workspace::read(root)?;
    let mut findings = imports::check_manifests(&workspace);
    findings.extend(dependencies::check(&workspace, tree));
    for file in &tree.files {
        findings.extend(shape::check_name(&file.path));
        let Some(text) = &file.text else { continue };
        findings.extend(shape::check_text(&file.path, text));
        if file.path.ends_with(".md") {
            findings.extend(markdown::check(&file.path, text, tree));
        }
        if file.path.ends_with("/Cargo.toml") {
            findings.extend(workspace::check_manifest(&file.path, text));
        }
        if file.path.ends_with(".rs") && !tree::is_generated(&file.path) {
            findings.extend(markdown::check_comments(&file.path, text, tree));
            match Source::parse(&file.path, text) {
                Ok(source) => {
                    findings.extend(imports::check_source(&source));
                    findings.extend(shape::check_source(&source));
                }
                Err(error) => findings.push(finding(&file.path, 0, format!("{error:#}"))),
            }
        }
    }
    findings.extend(imports::check_architecture(tree.text("ARCHITECTURE.md").unwrap_or_default()));
    findings.sort();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let root = &crate::root();
        let tree = Tree::read(root).unwrap();
        let findings = check(root, &tree).unwrap();
        let list = findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n");
        assert!(findings.is_empty(), "{} findings:\n{list}", findings.len());
        // A walk that finds nothing would find nothing wrong either.
        assert!(tree.files.iter().filter(|file| file.path.ends_with(".rs")).count() > 20);
    }
}
