//! The histories in `histories/`: what each good one has right its bad twin has wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use kvorum_checker::{Limits, Verdict, linearizable, read_lines};

fn judge(file: &str) -> Verdict {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/histories/linearizable");
    let history = read_lines(BufReader::new(File::open(path.join(file)).unwrap())).unwrap();
    linearizable(&history, Limits::default())
}

fn names(kind: &str) -> Vec<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/histories/linearizable");
    let files = std::fs::read_dir(path.join(kind)).unwrap();
    let mut names: Vec<String> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn good_histories_hold() {
    let names = names("good");
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        let verdict = judge(&format!("good/{name}"));
        assert!(verdict.holds(), "{name}: {verdict}");
    }
}

/// What is said of each bad one, as a terminal shows it.
#[test]
fn bad_histories_are_explained() {
    let mut said = String::new();
    for name in names("bad") {
        let verdict = judge(&format!("bad/{name}"));
        assert!(verdict.violation().is_some(), "{name}: {verdict}");
        said += &format!("# {}\n{verdict}\n\n", name.trim_end_matches(".jsonl"));
    }
    println!("{said}");
}
