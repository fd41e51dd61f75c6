//! Makes the Rust code of the Cap'n Proto schema, and tells whether what is checked in is fresh.
//!
//! A build must not need the `capnp` tool, so its output is checked in beside a checksum of the
//! files it was made from. With the tool at hand freshness is checked by making the code again;
//! without it by the checksums, which at least notice a schema that was changed and not generated.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const SCHEMAS: [&str; 6] = [
    "admin.capnp",
    "any_replica.capnp",
    "catch_up.capnp",
    "client.capnp",
    "paxos.capnp",
    "peer.capnp",
];
const CHECKSUMS: &str = "SOURCES";

/// Writes the generated code into `schema/src/generated`.
pub(crate) fn generate(root: &Path) -> Result<()> {
    ensure!(
        tool_is_here(),
        "the `capnp` tool is not installed; on Debian: apt-get install capnproto"
    );
    let target = root.join("schema/src/generated");
    fs::create_dir_all(&target)?;
    generate_into(root, &target)?;
    fs::write(target.join(CHECKSUMS), checksums(root)?)?;
    Ok(())
}

/// What was compared to find the code fresh.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fresh {
    /// The code was made again and is the same.
    Regenerated,
    /// There is no `capnp` tool here; the schema's checksums are the ones it was made from.
    Checksums,
}

/// Fails unless the checked-in code is what the schema says.
pub(crate) fn check(root: &Path) -> Result<Fresh> {
    let checked_in = root.join("schema/src/generated");
    let recorded = fs::read_to_string(checked_in.join(CHECKSUMS))
        .context("schema/src/generated/SOURCES is missing: run `cargo xtask codegen`")?;
    if recorded != checksums(root)? {
        bail!("a schema file changed after its code was generated: run `cargo xtask codegen`");
    }
    if !tool_is_here() {
        return Ok(Fresh::Checksums);
    }
    let fresh = tempfile::tempdir()?;
    generate_into(root, fresh.path())?;
    for schema in SCHEMAS {
        let name = generated_name(schema);
        if fs::read(fresh.path().join(&name))? != fs::read(checked_in.join(&name))? {
            bail!("schema/src/generated/{name} is stale: run `cargo xtask codegen`");
        }
    }
    Ok(Fresh::Regenerated)
}

fn tool_is_here() -> bool {
    Command::new("capnp").arg("--version").output().is_ok_and(|output| output.status.success())
}

fn generate_into(root: &Path, target: &Path) -> Result<()> {
    let mut command = capnpc::CompilerCommand::new();
    command.src_prefix(root.join("schema")).output_path(target);
    command.default_parent_module(vec!["generated".to_owned()]);
    for schema in SCHEMAS {
        command.file(root.join("schema").join(schema));
    }
    command.run().context("capnp could not compile the schema")?;
    Ok(())
}

fn generated_name(schema: &str) -> String {
    let stem = PathBuf::from(schema).with_extension("");
    format!("{}_capnp.rs", stem.display())
}

fn checksums(root: &Path) -> Result<String> {
    let mut lines = String::new();
    for schema in SCHEMAS {
        let path = root.join("schema").join(schema);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        writeln!(lines, "{:08x} {schema}", crc32c::crc32c(&bytes))?;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_code_is_fresh() {
        let how = check(&crate::root()).expect("the generated code is stale");
        println!("compared by: {how:?}");
    }
}
