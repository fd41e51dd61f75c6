//! The histories in `histories/`: what each good one has right its bad twin has wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use kvorum_checker::{
    Ending, Limits, Operation, Record, Verdict, converged, linearizable, read_lines, timeline,
    timeline_page,
};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/histories/linearizable")
}

fn judge(file: &str) -> Verdict {
    let file = File::open(directory().join(file)).unwrap();
    let history = read_lines(BufReader::new(file)).unwrap();
    linearizable(&history, Limits::default())
}

fn names(kind: &str) -> Vec<String> {
    let files = std::fs::read_dir(directory().join(kind)).unwrap();
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

/// What is said of each bad one, as a terminal shows it, is in `explained.txt`; with
/// `UPDATE_GOLDEN=1` that file is written anew. Each picture has all of the operations.
#[test]
fn bad_histories_are_explained() {
    let mut said = String::new();
    let names = names("bad");
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        let verdict = judge(&format!("bad/{name}"));
        let violation = verdict.violation().unwrap_or_else(|| panic!("{name}: {verdict}"));
        assert_eq!(violation.blamed.len(), 1, "{name}: {verdict}");
        said += &format!("# {}\n{verdict}\n\n", name.trim_end_matches(".jsonl"));
        let picture = timeline(violation);
        let bars = picture.matches("class=\"bar\"").count();
        assert_eq!(bars, violation.operations.len(), "{name}: {picture}");
        assert_eq!(picture.matches("<g class=\"deed bad").count(), 1, "{name}: {picture}");
    }
    let golden = directory().join("explained.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &said).unwrap();
    }
    assert_eq!(said, std::fs::read_to_string(golden).unwrap());
}

#[test]
fn what_a_history_says_cannot_get_out_of_the_picture() {
    let hostile = "<script>alert('1')</script>\"&\u{7}";
    let record =
        |call, ending, operation| Record { client: 7, call, ret: call + 5, ending, operation };
    let key = hostile.to_owned();
    let put = Operation::Put { key: key.clone(), value: hostile.to_owned() };
    let history = vec![
        record(0, Ending::Done, put.clone()),
        record(3, Ending::Unknown, Operation::Delete { key: key.clone() }),
        record(10, Ending::Done, Operation::Get { key: key.clone(), result: None }),
        record(20, Ending::Done, put),
        record(30, Ending::Done, Operation::Get { key, result: None }),
    ];
    let verdict = linearizable(&history, Limits::default());
    let violation = verdict.violation().unwrap();
    let page = timeline_page(violation);
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    for bad in ["<script", "alert('", "\u{7}", "src=", "href=", "url(http", "@import"] {
        assert!(!page.contains(bad), "{bad}: {page}");
    }
    assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;"), "{page}");
    assert_eq!(page.matches("deed open").count(), 1, "{page}");
}

#[test]
fn copies_that_differ_are_a_table() {
    let copy = |name: &str, value: &str| {
        (
            name.to_owned(),
            vec![("a".to_owned(), "<same>".to_owned()), ("b".to_owned(), value.to_owned())],
        )
    };
    let verdict = converged(&[copy("n1", "1"), copy("n2", "1"), copy("n3", "2")]);
    let table = timeline(verdict.violation().unwrap());
    assert!(table.contains("<th>n1</th>"), "{table}");
    let row = "<tr><td>b</td><td>1</td><td>1</td><td class=\"bad\">2</td></tr>";
    assert!(table.contains(row) && !table.contains("&lt;same"), "{table}");
}
