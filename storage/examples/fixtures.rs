//! Makes a fixture of today's formats: `cargo run -p kvorum-storage --example fixtures -- DIR`. See
//! `storage/tests/fixtures/README.md`.

use std::path::Path;

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/fixtures/generate.rs"]
mod generate;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let to = std::env::args_os().nth(1).ok_or("say where to: fixtures DIR")?;
    let to = Path::new(&to);
    if to.exists() {
        return Err(format!("{} is there; what was made is never made anew", to.display()).into());
    }
    generate::generate(to)
}
