//! Every file of the repository, read once.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The repository's files, in the order of their paths.
pub(super) struct Tree {
    pub(super) files: Vec<File>,
    /// Every file and folder by its path, for links.
    entries: BTreeSet<String>,
}

/// One file.
pub(super) struct File {
    /// Relative to the root, with slashes.
    pub(super) path: String,
    /// What it says; `None` if it is no text.
    pub(super) text: Option<String>,
}

/// Whether a path holds code that a machine wrote.
pub(super) fn is_generated(path: &str) -> bool {
    path.split('/').any(|part| part == "generated")
}

impl Tree {
    /// Walks the folders below `root`. What a build or a version control system put there is left
    /// out: folders that cargo marked as a cache, and hidden ones but those of our own.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { files: Vec::new(), entries: BTreeSet::new() };
        tree.walk(root, "")?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self { files: Vec::new(), entries: BTreeSet::new() };
        for (path, text) in files {
            for (slash, _) in path.match_indices('/') {
                tree.entries.insert(path[..slash].to_owned());
            }
            tree.entries.insert((*path).to_owned());
            let file = File { path: (*path).to_owned(), text: Some((*text).to_owned()) };
            tree.files.push(file);
        }
        tree
    }

    /// The text of one file.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path)?.text.as_deref()
    }

    /// Whether there is a file or folder of this path.
    pub(super) fn has(&self, path: &str) -> bool {
        path.is_empty() || self.entries.contains(path)
    }

    fn walk(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        let list = fs::read_dir(folder).with_context(|| format!("in {}", folder.display()))?;
        for entry in list {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            let ours = [".ci", ".cargo", ".gitignore"].contains(&name.as_str());
            if name.starts_with('.') && !ours || name == "kvorum-data" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                if entry.path().join("CACHEDIR.TAG").exists() {
                    continue;
                }
                self.walk(&entry.path(), &format!("{path}/"))?;
            } else {
                let bytes = fs::read(entry.path()).with_context(|| format!("in {path}"))?;
                let text = String::from_utf8(bytes).ok();
                self.files.push(File { path: path.clone(), text });
            }
            self.entries.insert(path);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_leaves_out_what_is_not_ours() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("README.md", "hello"),
            ("a/src/lib.rs", "//! A."),
            (".ci/run", "#!/bin/sh"),
            (".git/config", "not ours"),
            ("target/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55"),
            ("target/debug/thing.rs", "not ours"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let tree = Tree::read(root.path()).unwrap();
        let paths: Vec<&str> = tree.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".ci/run", "README.md", "a/src/lib.rs"]);
        assert_eq!(tree.text("README.md"), Some("hello"));
        assert!(tree.has("a/src") && tree.has("a/src/lib.rs") && !tree.has("target"));
    }
}
