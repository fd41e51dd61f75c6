//! Hand-made histories of transactions (`tests/histories/transactions/`): each anomaly, and beside it a good
//! history that differs in one detail.
//!
//! A section begins with what the judge must say: `both:` for both kinds of isolation, `strict:`
//! where only real time is broken, `holds`. A line `> words` says how it must be explained.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod written;

use std::fs;
use std::path::Path;

use kvorum_checker::{
    History, Isolation, Limits, Transactions, Verdict, acyclic, read_lines, serializable,
    write_line,
};
use written::history;

struct Section {
    place: String,
    strict: String,
    serializable: String,
    words: Vec<String>,
    history: History,
}

fn sections() -> Vec<Section> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories/transactions");
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    let mut sections = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        for (number, part) in (1..).zip(text.split("\n--- ").skip(1)) {
            let (head, rest) = part.split_once('\n').unwrap();
            let (strict, serializable) = match head.split_once(": ") {
                Some(("both", rule)) => (rule, rule),
                Some(("strict", rule)) => (rule, "holds"),
                _ => ("holds", "holds"),
            };
            let is_word = |line: &&str| line.starts_with("> ");
            let lines: Vec<&str> = rest.lines().filter(|line| !line.starts_with('#')).collect();
            let told: Vec<&str> = lines.iter().copied().filter(|line| !is_word(line)).collect();
            sections.push(Section {
                place: format!("{name}, section {number}"),
                strict: strict.to_owned(),
                serializable: serializable.to_owned(),
                words: lines
                    .iter()
                    .filter(|line| is_word(line))
                    .map(|w| w[2..].to_owned())
                    .collect(),
                history: history(&told.join("\n")),
            });
        }
    }
    sections
}

fn said(verdict: &Verdict) -> String {
    verdict.violation().map_or_else(|| verdict.to_string(), |v| v.rule.to_string())
}

#[test]
fn hand_made_histories_are_judged_right() {
    let sections = sections();
    assert!(sections.len() > 60, "{} sections", sections.len());
    let mut wrong = String::new();
    for section in &sections {
        let Section { place, history, .. } = section;
        let strict = acyclic(history, Isolation::StrictSerializable);
        let loose = acyclic(history, Isolation::Serializable);
        // A cycle of data that is shorter with real time is still a cycle of data.
        if said(&strict) != section.strict || said(&loose) != section.serializable {
            wrong += &format!("{place}: strictly {strict}\n... else {loose}\n");
        }
        let words = strict.violation().map(|violation| violation.words.clone());
        if !section.words.is_empty() && words.as_ref() != section.words.first() {
            wrong += &format!("{place}: {words:?}\n");
        }
        let few = strict.violation().is_none_or(|violation| violation.operations.len() <= 5);
        assert!(few, "{place}: {strict}");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_search_agrees_where_it_can() {
    for Section { place, history, strict, .. } in sections() {
        let lists = history.iter().any(|record| {
            let shown = record.to_string();
            shown.contains("append") || shown.contains('[') && shown.contains("read ")
        });
        // The search knows no lists, and what a transaction reads of itself is not its affair.
        if lists || strict == "internal inconsistency" || strict.starts_with("G1b") {
            continue;
        }
        let verdict = serializable(&history, Limits::default());
        assert_eq!(verdict.holds(), strict == "holds", "{place}: {verdict}");
    }
}

#[test]
fn the_order_of_lines_changes_no_verdict() {
    let mut random = 7u64;
    for Section { place, mut history, strict, .. } in sections() {
        for _ in 0..10 {
            for i in (1..history.len()).rev() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let other = usize::try_from(random >> 33).unwrap() % (i + 1);
                history.swap(i, other);
            }
            let verdict = acyclic(&history, Isolation::StrictSerializable);
            assert_eq!(said(&verdict), strict, "{place}: {verdict}");
        }
    }
}

#[test]
fn lines_tell_the_same_history() {
    for Section { place, history, strict, .. } in sections() {
        let mut lines = Vec::new();
        for record in &history {
            write_line(&mut lines, record).unwrap();
        }
        let read = read_lines(&lines[..]).unwrap();
        assert_eq!(read, history, "{place}");
        let mut transactions = Transactions::new();
        for record in &read {
            transactions.push(record);
        }
        let verdict = transactions.acyclic(Isolation::StrictSerializable);
        assert_eq!(said(&verdict), strict, "{place}: {verdict}");
    }
}
