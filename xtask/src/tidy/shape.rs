//! The shape of files: their length and names, the length of functions, docs at the top, and words
//! that do not belong into finished work.

use super::source::Source;
use super::tree::is_generated;
use super::{Finding, finding};

/// Lines that a Rust file may have. One idea fits; a file that reaches this holds several.
const FILE_LINES_MAX: usize = 800;

/// Lines of code that a function may have before it has to say why; clippy.toml says the same.
const FUNCTION_LINES_MAX: usize = 90;

/// Notes to oneself and forgotten probes. Cut in two so that this file does not find itself.
const WORDS: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("dbg", "!("),
    concat!("<<<<", "<<<"),
];

/// Names that say nothing: an unnamed thing is not understood yet.
const NAMES: [&str; 8] =
    ["common", "helper", "helpers", "manager", "misc", "util", "utils", "stuff"];

/// A file or a folder of it with a name that says nothing.
pub(super) fn check_name(path: &str) -> Option<Finding> {
    let stem = |part: &str| part.split('.').next().map(str::to_lowercase);
    let mut parts = path.split('/').filter_map(stem);
    let bad = parts.find(|part| part.split(['_', '-']).any(|word| NAMES.contains(&word)))?;
    Some(finding(path, 0, format!("the name `{bad}` says nothing of what is inside")))
}

/// A text with notes to oneself; a Rust file that is too long or does not say what it is.
pub(super) fn check_text(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if is_generated(path) || path == "LICENSE" {
        return findings;
    }
    for (index, line) in text.lines().enumerate() {
        let word =
            |word: &&&str| line.match_indices(**word).any(|(at, _)| stands_alone(line, at, word));
        if let Some(word) = WORDS.iter().find(word) {
            let message = format!("`{word}`: finish it, or open an issue");
            findings.push(finding(path, index + 1, message));
        }
    }
    if path.ends_with(".rs") {
        if !text.starts_with("//! ") {
            findings.push(finding(path, 1, "the first line is no `//!` that says what this is"));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            let message =
                format!("has {lines} lines, more than {FILE_LINES_MAX}: split it by idea");
            findings.push(finding(path, 0, message));
        }
    }
    findings
}

/// Whether what is found at `at` is no part of a longer word.
fn stands_alone(line: &str, at: usize, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    let before = line[..at].chars().next_back();
    let after = line[at + word.len()..].chars().next();
    let goes_on = word.ends_with(joins) && after.is_some_and(joins);
    !before.is_some_and(joins) && !goes_on
}

/// Functions that fill more than a screen, and tests that never run.
pub(super) fn check_source(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for function in &source.functions {
        if function.code_lines > FUNCTION_LINES_MAX && !function.length_expected {
            let message = format!(
                "fn {} has {} lines of code, more than {FUNCTION_LINES_MAX}: split it, or give it \
                 #[expect(clippy::too_many_lines, reason = \"...\")]",
                function.name, function.code_lines
            );
            findings.push(finding(&source.path, function.line, message));
        }
    }
    for line in &source.ignored_tests {
        let message = "an ignored test proves nothing: bound it so that it can run, or remove it";
        findings.push(finding(&source.path, *line, message));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_say_nothing_are_found() {
        for path in ["a/src/utils.rs", "tests/common/mod.rs", "a/src/lock_manager.rs"] {
            assert!(check_name(path).is_some(), "{path}");
        }
        for path in ["a/src/locks.rs", "docs/uncommon.md", ".ci/run"] {
            assert_eq!(check_name(path), None);
        }
    }

    #[test]
    fn notes_to_oneself_are_found() {
        for word in WORDS {
            let text = format!("//! A.\n\n// {word} later\n");
            assert_eq!(check_text("a/src/lib.rs", &text).len(), 1, "{word}");
            assert_eq!(check_text("a.md", &text)[0].line, 3, "{word}");
            assert_eq!(check_text("schema/src/generated/a.rs", &text).len(), 0);
        }
        let part = format!("//! A.\nconst MAS{}: u8 = 1;\n", WORDS[0]);
        assert_eq!(check_text("a/src/lib.rs", &part).len(), 0);
    }

    #[test]
    fn a_file_without_docs_is_found() {
        assert_eq!(check_text("a/src/lib.rs", "use std::io;\n").len(), 1);
        assert_eq!(check_text("a/src/lib.rs", "// A.\n//! B.\n").len(), 1);
        assert_eq!(check_text("a/src/lib.rs", "//! What it is.\n").len(), 0);
    }

    #[test]
    fn a_file_that_is_too_long_is_found() {
        let text = |lines: usize| format!("//! A.\n{}", "// b\n".repeat(lines - 1));
        assert_eq!(check_text("a/src/lib.rs", &text(FILE_LINES_MAX)).len(), 0);
        assert_eq!(check_text("a/src/lib.rs", &text(FILE_LINES_MAX + 1)).len(), 1);
        assert_eq!(check_text("a/src/generated/b.rs", &text(FILE_LINES_MAX + 1)).len(), 0);
    }

    #[test]
    fn a_function_that_is_too_long_is_found_unless_it_says_why() {
        let check = |attribute: &str, lines: usize| {
            let body = "    // why\n\n    a();\n".repeat(lines);
            let text = format!("{attribute}\nfn f() {{\n{body}}}\n");
            check_source(&Source::parse("a/src/lib.rs", &text).unwrap()).len()
        };
        assert_eq!(check("", FUNCTION_LINES_MAX), 0);
        assert_eq!(check("", FUNCTION_LINES_MAX + 1), 1);
        let why = "#[expect(clippy::too_many_lines, reason = \"one row for each message\")]";
        assert_eq!(check(why, FUNCTION_LINES_MAX + 1), 0);
        assert_eq!(check("#[expect(clippy::too_many_lines)]", FUNCTION_LINES_MAX + 1), 1);
    }

    #[test]
    fn the_limit_of_functions_is_the_one_clippy_has() {
        let clippy = std::fs::read_to_string(crate::root().join("clippy.toml")).unwrap();
        let limit = format!("too-many-lines-threshold = {FUNCTION_LINES_MAX}");
        assert!(clippy.lines().any(|line| line == limit), "{clippy}");
    }

    #[test]
    fn an_ignored_test_is_found() {
        let source = Source::parse("a/src/lib.rs", "#[test]\n#[ignore]\nfn t() {}").unwrap();
        assert_eq!(check_source(&source)[0].line, 2);
    }
}
