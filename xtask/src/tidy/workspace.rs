//! The workspace's crates and what they depend on, as cargo reads the manifests.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Finding, finding};

/// The crates of the workspace.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    pub(super) crates: Vec<Package>,
}

/// One crate.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: String,
    /// Its folder, relative to the root.
    pub(super) folder: String,
    pub(super) dependencies: Vec<Dependency>,
}

/// A direct dependency of a crate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// It is a crate of this workspace.
    pub(super) ours: bool,
    /// Only tests and benchmarks are built with it.
    pub(super) dev: bool,
}

impl Workspace {
    /// Asks cargo, which needs no network for it.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let output = Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
            .current_dir(root)
            .output()
            .context("cannot start `cargo metadata`")?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`cargo metadata` failed: {message}");
        Self::parse(&serde_json::from_slice(&output.stdout)?)
    }

    fn parse(metadata: &Value) -> Result<Self> {
        let root = Path::new(text(metadata, "workspace_root")?);
        let packages = list(metadata, "packages")?;
        let crates: Result<Vec<Package>> = packages.iter().map(|p| package(root, p)).collect();
        Ok(Self { crates: crates? })
    }
}

fn package(root: &Path, package: &Value) -> Result<Package> {
    let manifest = Path::new(text(package, "manifest_path")?);
    let folder = manifest.parent().context("a manifest lies in no folder")?;
    let dependencies: Result<Vec<Dependency>> =
        list(package, "dependencies")?.iter().map(dependency).collect();
    Ok(Package {
        name: text(package, "name")?.to_owned(),
        folder: folder.strip_prefix(root)?.to_string_lossy().replace('\\', "/"),
        dependencies: dependencies?,
    })
}

fn dependency(dependency: &Value) -> Result<Dependency> {
    Ok(Dependency {
        name: text(dependency, "name")?.to_owned(),
        ours: dependency["path"].is_string(),
        dev: dependency["kind"] == "dev",
    })
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().with_context(|| format!("cargo's metadata has no text `{field}`"))
}

fn list<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>> {
    value[field].as_array().with_context(|| format!("cargo's metadata has no list `{field}`"))
}

/// Each crate takes the workspace's lints: a crate that forgets them is checked by nothing.
/// A package apart from the workspace, as a fuzzer's must be, has none to take.
pub(super) fn check_manifest(path: &str, text: &str) -> Option<Finding> {
    let is_apart = text.contains("[package]") && text.lines().any(|line| line == "[workspace]");
    if is_apart {
        return None;
    }
    let inherits = text.split("\n[").any(|section| {
        let section = section.trim_start_matches('[');
        section.starts_with("lints]") && section.lines().any(|line| line == "workspace = true")
    });
    let message = "takes no lints: add `[lints]` with `workspace = true`";
    (!inherits).then(|| finding(path, 0, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read() {
        let metadata = serde_json::json!({
            "workspace_root": "/w",
            "packages": [{
                "name": "kvorum-node",
                "manifest_path": "/w/node/Cargo.toml",
                "dependencies": [
                    {"name": "kvorum-storage", "kind": null, "path": "/w/storage"},
                    {"name": "tempfile", "kind": "dev", "source": "registry"},
                ],
            }],
        });
        let workspace = Workspace::parse(&metadata).unwrap();
        assert_eq!(workspace.crates.len(), 1);
        let package = &workspace.crates[0];
        assert_eq!((package.name.as_str(), package.folder.as_str()), ("kvorum-node", "node"));
        let ours = Dependency { name: "kvorum-storage".to_owned(), ours: true, dev: false };
        let theirs = Dependency { name: "tempfile".to_owned(), ours: false, dev: true };
        assert_eq!(package.dependencies, [ours, theirs]);
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        let good = "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n";
        assert_eq!(check_manifest("a/Cargo.toml", good), None);
        let bad = "[package]\nname = \"a\"\nlicense.workspace = true\n\n[dependencies]\n";
        assert!(check_manifest("a/Cargo.toml", bad).is_some());
        let apart = format!("{bad}\n[workspace]\n");
        assert_eq!(check_manifest("fuzz/Cargo.toml", &apart), None);
        let other = "[package]\nname = \"a\"\n\n[lints.rust]\nmissing_docs = \"allow\"\n";
        assert!(check_manifest("a/Cargo.toml", other).is_some());
    }
}
