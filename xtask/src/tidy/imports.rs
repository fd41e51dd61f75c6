//! Who may import whom: between crates by their manifests, within a crate by the paths it names.
//!
//! The tables are this file's first half. A new arrow between crates changes the table here, the
//! one in ARCHITECTURE.md, and the code, in one commit; the rules fail until they agree.

use super::source::{Name, Source};
use super::workspace::{Package, Workspace};
use super::{Finding, finding};

/// One crate and what it may depend on.
struct Crate {
    folder: &'static str,
    /// Folders of our own crates that it may import.
    ours: Ours,
    others: Others,
}

enum Ours {
    These(&'static [&'static str]),
    Everything,
}

/// Which crates of other people it may import.
enum Others {
    /// These, and for tests any.
    Only(&'static [&'static str]),
    /// Any but these, and these not for tests either.
    Never(&'static [&'static str]),
}

/// Event loops and their friends: what runs on them can't be driven by the simulator.
const ASYNC_AND_CAPNP: &[&str] =
    &["tokio", "futures", "tokio-util", "tokio-rustls", "capnp", "capnp-rpc", "capnpc"];

/// Cap'n Proto types stop at the crate `rpc`.
const CAPNP: &[&str] = &["capnp", "capnp-rpc", "capnpc"];

const CRATES: [Crate; 13] = [
    Crate { folder: "schema", ours: Ours::These(&[]), others: Others::Only(&["capnp"]) },
    Crate { folder: "storage", ours: Ours::These(&[]), others: Others::Never(ASYNC_AND_CAPNP) },
    Crate {
        folder: "replication",
        ours: Ours::These(&[]),
        others: Others::Only(&["bytes", "hashbrown", "smallvec"]),
    },
    Crate {
        folder: "node",
        ours: Ours::These(&["replication", "storage"]),
        others: Others::Never(ASYNC_AND_CAPNP),
    },
    Crate {
        folder: "rpc",
        ours: Ours::These(&["node", "replication", "schema"]),
        others: Others::Never(&[]),
    },
    Crate { folder: "checker", ours: Ours::These(&[]), others: Others::Never(ASYNC_AND_CAPNP) },
    Crate {
        folder: "sim",
        ours: Ours::These(&["node", "replication", "storage", "checker"]),
        others: Others::Never(ASYNC_AND_CAPNP),
    },
    Crate {
        folder: "bins",
        ours: Ours::These(&["storage", "replication", "node", "rpc", "checker", "sim"]),
        others: Others::Never(CAPNP),
    },
    Crate { folder: "tests", ours: Ours::Everything, others: Others::Never(&[]) },
    Crate { folder: "benches", ours: Ours::Everything, others: Others::Never(&[]) },
    Crate {
        folder: "benches/chain",
        ours: Ours::These(&[]),
        others: Others::Never(ASYNC_AND_CAPNP),
    },
    Crate {
        folder: "benches/engines",
        ours: Ours::These(&["storage"]),
        others: Others::Never(ASYNC_AND_CAPNP),
    },
    Crate { folder: "xtask", ours: Ours::These(&[]), others: Others::Never(&[]) },
];

/// Paths that code in a folder must not name.
struct Forbidden {
    /// Files whose paths begin with one of these.
    inside: &'static [&'static str],
    /// But for this one: the door.
    door: Option<&'static str>,
    paths: &'static [&'static str],
    /// Tests may.
    tests_may: bool,
    why: &'static str,
}

const FORBIDDEN: [Forbidden; 7] = [
    Forbidden {
        inside: &["storage/src/"],
        door: Some("storage/src/vfs/real.rs"),
        paths: &["std::fs", "std::os", "rustix::fs", "memmap2", "tempfile"],
        tests_may: false,
        why: "the engine reaches the disk through the trait `Vfs` alone, so that tests can be the disk",
    },
    Forbidden {
        inside: &["storage/src/"],
        door: None,
        paths: &["std::net", "std::thread::spawn", "std::thread::Builder", "std::thread::scope"],
        tests_may: true,
        why: "the engine knows no network and owns no thread; its owner drives it",
    },
    Forbidden {
        inside: &["replication/src/"],
        door: None,
        paths: &["std"],
        tests_may: true,
        why: "a core is a pure state machine, built without the standard library",
    },
    Forbidden {
        inside: &["node/src/"],
        door: None,
        paths: &["std::net", "std::os::unix::net"],
        tests_may: false,
        why: "sockets are the crate `rpc`'s; a node talks to an `Outbox`",
    },
    Forbidden {
        inside: &["sim/src/"],
        door: None,
        paths: &["std::time::Instant", "std::time::SystemTime", "std::net", "std::fs"],
        tests_may: false,
        why: "in the simulator time, network and disk come from the seed",
    },
    Forbidden {
        inside: &["checker/src/"],
        door: None,
        paths: &["std::fs", "std::net"],
        tests_may: true,
        why: "the checker judges a history that it is handed",
    },
    Forbidden {
        inside: &["storage/src/", "node/src/", "rpc/src/", "checker/src/", "sim/src/"],
        door: None,
        paths: &["std::env"],
        tests_may: true,
        why: "libraries take options; only mains read flags and the environment",
    },
];

/// Holds the manifests against the table of crates.
pub(super) fn check_manifests(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &workspace.crates {
        match CRATES.iter().find(|known| known.folder == package.folder) {
            Some(known) => check_package(workspace, package, known, &mut findings),
            None => findings.push(finding(
                &format!("{}/Cargo.toml", package.folder),
                0,
                "is not in the table of crates in xtask/src/tidy/imports.rs: \
                 say there, and in ARCHITECTURE.md, what it may import",
            )),
        }
    }
    findings
}

fn check_package(
    workspace: &Workspace,
    package: &Package,
    known: &Crate,
    findings: &mut Vec<Finding>,
) {
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        let allowed = if dependency.ours {
            let folder = workspace.crates.iter().find(|other| other.name == name);
            match &known.ours {
                Ours::Everything => true,
                Ours::These(these) => {
                    folder.is_some_and(|other| these.contains(&other.folder.as_str()))
                }
            }
        } else {
            match &known.others {
                Others::Only(these) => dependency.dev || these.contains(&name),
                Others::Never(these) => !these.contains(&name),
            }
        };
        if !allowed {
            let message = format!("may not depend on {name} (table in xtask/src/tidy/imports.rs)");
            findings.push(finding(&format!("{}/Cargo.toml", package.folder), 0, message));
        }
    }
}

/// Holds the paths that a file names against the table of forbidden ones.
pub(super) fn check_source(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in &FORBIDDEN {
        let inside = rule.inside.iter().any(|folder| source.path.starts_with(folder));
        if !inside || rule.door == Some(&source.path) {
            continue;
        }
        for name in &source.names {
            let hit = rule.paths.iter().find(|path| reaches(name, path));
            if let (Some(path), false) = (hit, rule.tests_may && name.in_test) {
                let message = format!("may not name `{path}`: {}", rule.why);
                findings.push(finding(&source.path, name.line, message));
            }
        }
    }
    if source.path == "replication/src/lib.rs" && !source.no_std {
        findings.push(finding(
            &source.path,
            0,
            "must say #![no_std]: cores know no operating system",
        ));
    }
    findings.extend(check_protocols(source));
    findings
}

/// Whether a name is the forbidden path, lies in it, or imports what it lies in.
fn reaches(name: &Name, forbidden: &str) -> bool {
    let forbidden: Vec<&str> = forbidden.split("::").collect();
    let glob = name.parts.last().is_some_and(|last| last == "*");
    let parts = &name.parts[..name.parts.len() - usize::from(glob)];
    let same = parts.iter().zip(&forbidden).all(|(part, wanted)| part == wanted);
    // A mere import of a module opens the way to all of it only if it is the module's parent as a
    // glob, or the path is named through it, which shows as a path of its own: `use std; std::fs`.
    same && (parts.len() >= forbidden.len() || glob && name.imported)
}

/// One protocol never imports another: what two of them need lies beside them, not in one.
fn check_protocols(source: &Source) -> Vec<Finding> {
    let Some(inside) = source.path.strip_prefix("replication/src/") else { return Vec::new() };
    let Some((protocol, file)) = inside.split_once('/') else { return Vec::new() };
    let mut modules: Vec<&str> = vec![protocol];
    modules.extend(file.trim_end_matches(".rs").split('/').filter(|part| *part != "mod"));
    let foreign = |name: &Name| {
        let mut here = modules.clone();
        here.extend(name.inline_modules.iter().map(String::as_str));
        let resolved = resolve(&here, &name.parts)?;
        let other = (*resolved.first()?).to_owned();
        (other != protocol && PROTOCOLS.contains(&other.as_str())).then_some((name.line, other))
    };
    let message = |other| format!("the protocol {protocol} may not import the protocol {other}");
    let hits = source.names.iter().filter_map(foreign);
    hits.map(|(line, other)| finding(&source.path, line, message(other))).collect()
}

/// The folders of replication/src that hold a protocol each.
const PROTOCOLS: [&str; 5] = ["two_phase", "paxos", "epaxos", "quorum", "bayou"];

/// The path from the crate's root that a path within a module means; `None` for other crates.
fn resolve<'a>(here: &[&'a str], parts: &'a [String]) -> Option<Vec<&'a str>> {
    let mut resolved = match parts.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => here.to_vec(),
        _ => return None,
    };
    for part in parts {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => drop(resolved.pop()),
            part => resolved.push(part),
        }
    }
    Some(resolved)
}

/// Holds the table in ARCHITECTURE.md against the one here: a row for each crate, its folder in the
/// first column and what it may import of ours in the third.
pub(super) fn check_architecture(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for known in &CRATES {
        let imports = match known.ours {
            Ours::Everything => "everything".to_owned(),
            Ours::These([]) => "nothing of ours".to_owned(),
            Ours::These(these) => {
                these.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            }
        };
        let folder = format!("`{}`", known.folder);
        let said = text.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
        let said = said.filter(|cells| cells.len() > 4 && cells[1] == folder).map(|cells| cells[3]);
        if said.clone().next() != Some(&imports) {
            let said = said.clone().next().unwrap_or("nothing");
            let message = format!("says {said} of what {folder} imports; tidy says {imports}");
            findings.push(finding("ARCHITECTURE.md", 0, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::workspace::Dependency;
    use super::*;

    fn dependency(name: &str, ours: bool, dev: bool) -> Dependency {
        Dependency { name: name.to_owned(), ours, dev }
    }

    /// What tidy says of a crate in `folder` with one dependency, in a workspace of all our crates.
    fn manifest(folder: &str, dependency: Dependency) -> Vec<String> {
        let package = |folder: &str, dependencies| Package {
            name: format!("kvorum-{folder}"),
            folder: folder.to_owned(),
            dependencies,
        };
        let mut crates = vec![package(folder, vec![dependency])];
        let rest = CRATES.iter().map(|known| known.folder).filter(|other| *other != folder);
        crates.extend(rest.map(|folder| package(folder, Vec::new())));
        let findings = check_manifests(&Workspace { crates });
        findings.iter().map(Finding::to_string).collect()
    }

    /// What tidy says of a file.
    fn source(path: &str, text: &str) -> Vec<String> {
        let findings = check_source(&Source::parse(path, text).unwrap());
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn an_arrow_between_crates_that_is_not_in_the_table_is_found() {
        assert_eq!(manifest("node", dependency("kvorum-storage", true, false)).len(), 0);
        for (folder, other) in [
            ("storage", "replication"),
            ("replication", "storage"),
            ("node", "rpc"),
            ("rpc", "storage"),
            ("checker", "replication"),
            ("sim", "rpc"),
            ("storage", "tests"),
        ] {
            let other = format!("kvorum-{other}");
            // For tests neither: what a crate's tests import, the crate is shaped by.
            for dev in [false, true] {
                let found = manifest(folder, dependency(&other, true, dev));
                assert!(found[0].contains(&other), "{folder} and {other}: {found:?}");
            }
        }
    }

    #[test]
    fn dependencies_of_others_that_do_not_belong_are_found() {
        for (folder, name) in
            [("node", "tokio"), ("node", "capnp"), ("storage", "futures"), ("bins", "capnp-rpc")]
        {
            assert_eq!(manifest(folder, dependency(name, false, true)).len(), 1, "{folder} {name}");
        }
        assert_eq!(manifest("replication", dependency("indexmap", false, false)).len(), 1);
        assert_eq!(manifest("replication", dependency("hashbrown", false, false)).len(), 0);
        assert_eq!(manifest("replication", dependency("goldenscript", false, true)).len(), 0);
        assert_eq!(manifest("rpc", dependency("tokio", false, false)).len(), 0);
    }

    #[test]
    fn a_crate_that_is_not_in_the_table_is_found() {
        assert!(manifest("gossip", dependency("bytes", false, false))[0].contains("gossip"));
    }

    #[test]
    fn the_disk_has_one_door() {
        for text in [
            "use std::fs;",
            "use std::{fs::File, io};",
            "fn f() { std::fs::read(p) }",
            "#[cfg(test)] mod tests { use std::fs; }",
            "use std::os::unix::fs::FileExt;",
            "use rustix::fs::fallocate;",
        ] {
            assert_eq!(source("storage/src/log/file.rs", text).len(), 1, "{text}");
            assert_eq!(source("storage/src/vfs/real.rs", text).len(), 0, "{text}");
        }
        assert!(!source("storage/src/log/file.rs", "use std::*;").is_empty());
        assert_eq!(source("storage/src/log/file.rs", "use std::io; // std::fs").len(), 0);
        assert_eq!(source("storage/tests/log_crash.rs", "use std::fs;").len(), 0);
    }

    #[test]
    fn cores_do_without_the_standard_library() {
        assert_eq!(source("replication/src/paxos/mod.rs", "use std::time::Instant;").len(), 1);
        assert_eq!(source("replication/src/lib.rs", "#![no_std] extern crate std;").len(), 1);
        assert_eq!(source("replication/src/lib.rs", "extern crate alloc;").len(), 1);
        let test = "#[cfg(test)] mod tests { use std::println; }";
        assert_eq!(source("replication/src/paxos/mod.rs", test).len(), 0);
    }

    #[test]
    fn a_node_has_no_sockets_and_the_simulator_no_clock() {
        assert_eq!(source("node/src/runner.rs", "use std::net::TcpStream;").len(), 1);
        assert_eq!(source("sim/src/world.rs", "fn f() { std::time::Instant::now(); }").len(), 1);
        assert_eq!(source("storage/src/store.rs", "fn f() { std::thread::spawn(g); }").len(), 1);
        assert_eq!(source("rpc/src/client.rs", "use std::env;").len(), 1);
    }

    #[test]
    fn one_protocol_does_not_import_another() {
        let path = "replication/src/paxos/leader/recovery.rs";
        assert_eq!(source(path, "use crate::two_phase::message::TxnId;").len(), 1);
        assert_eq!(source(path, "use super::super::super::epaxos::X;").len(), 1);
        assert_eq!(
            source(path, "mod tests { use super::super::super::super::epaxos::X; }").len(),
            1
        );
        assert_eq!(source(path, "use crate::{contract::Core, paxos::message};").len(), 0);
        assert_eq!(source(path, "use super::super::message::Ballot;").len(), 0);
        assert_eq!(
            source("replication/src/lib.rs", "#![no_std] pub use crate::two_phase::X;").len(),
            0
        );
    }

    #[test]
    fn an_architecture_page_that_says_otherwise_is_found() {
        let row = |folder: &str, imports: &str| format!("| `{folder}` | x | {imports} | y |\n");
        let mut page = String::new();
        for known in &CRATES {
            page += &match &known.ours {
                Ours::Everything => row(known.folder, "everything"),
                Ours::These([]) => row(known.folder, "nothing of ours"),
                Ours::These(these) => row(known.folder, &format!("`{}`", these.join("`, `"))),
            };
        }
        assert_eq!(check_architecture(&page), []);
        let wrong = page.replace("`node`, `replication`, `schema`", "`node`, `storage`");
        assert_eq!(check_architecture(&wrong).len(), 1);
        let missing = page.replace("`checker` | x", "`judge` | x");
        assert_eq!(check_architecture(&missing).len(), 1);
    }
}
