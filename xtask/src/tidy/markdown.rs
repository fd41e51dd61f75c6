//! Links between the Markdown files and to the code: the page, and on it the heading, must be
//! there. So must be files of ours that a text names in backticks, and pages that code names.

use super::tree::Tree;
use super::{Finding, finding};

/// Links and file names that lead nowhere.
pub(super) fn check(path: &str, text: &str, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, prose) in prose(text) {
        let (words, code) = split_code(prose);
        for target in links(&words) {
            if let Some(wrong) = check_link(path, target, tree) {
                findings.push(finding(path, line, wrong));
            }
        }
        // A changelog and a record of a decision speak of files as they were.
        let speaks_of_now = path != "CHANGELOG.md" && !path.starts_with("docs/decisions/");
        for name in code.into_iter().filter(|name| speaks_of_now && names_our_file(name, tree)) {
            if !tree.has(name.trim_end_matches('/')) {
                findings.push(finding(path, line, format!("there is no file {name}")));
            }
        }
    }
    findings
}

/// Pages of ours that a Rust file's comments send the reader to, and that are not there.
pub(super) fn check_comments(path: &str, text: &str, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
        let (_, code) = split_code(comment);
        let pages = code.into_iter().filter(|name| name.starts_with("docs/"));
        for page in pages.filter(|page| !tree.has(page)) {
            findings.push(finding(path, index + 1, format!("there is no page {page}")));
        }
    }
    findings
}

/// The lines outside fenced blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// The line without what stands in backticks, and what stands in them.
fn split_code(line: &str) -> (String, Vec<&str>) {
    let mut words = String::new();
    let mut code = Vec::new();
    for (index, part) in line.split('`').enumerate() {
        if index % 2 == 0 { words.push_str(part) } else { code.push(part) }
    }
    (words, code)
}

/// The targets of `[text](target)` and `[name]: target`.
fn links(line: &str) -> Vec<&str> {
    let inline = line.match_indices("](").filter_map(|(at, _)| {
        let target = &line[at + 2..];
        target.find(')').map(|end| &target[..end])
    });
    let named = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    inline.chain(named.map(|(_, target)| target.trim())).collect()
}

/// What is wrong with a link on the page `path`, if anything.
fn check_link(path: &str, target: &str, tree: &Tree) -> Option<String> {
    if ["https://", "http://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (file, heading) = match target.split_once('#') {
        Some((file, heading)) => (file, Some(heading)),
        None => (target, None),
    };
    let Some(file) = (if file.is_empty() { Some(path.to_owned()) } else { join(path, file) })
    else {
        return Some(format!("the link {target} leaves the repository"));
    };
    if !tree.has(&file) {
        return Some(format!("the link {target} leads nowhere: there is no {file}"));
    }
    let heading = heading.filter(|_| file.ends_with(".md"))?;
    let there = prose(tree.text(&file)?).any(|(_, line)| slug(line).as_deref() == Some(heading));
    (!there).then(|| format!("the link {target} leads nowhere: {file} has no such heading"))
}

/// The path that a relative link on the page `from` means; `None` above the root.
fn join(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// What a link to this heading is called; `None` if the line is no heading.
fn slug(line: &str) -> Option<String> {
    let heading = line.starts_with('#').then(|| line.trim_start_matches('#'))?.strip_prefix(' ')?;
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

/// Whether a word in backticks is meant as the path of a file or folder of ours.
fn names_our_file(name: &str, tree: &Tree) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let folder = name.split('/').next().unwrap_or_default();
    plain && name.contains('/') && !folder.is_empty() && tree.has(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Two words, `code`\n\n```\n# no heading\n```\n";

    fn check_page(path: &str, text: &str) -> usize {
        let tree = Tree::of(&[
            ("README.md", ""),
            ("docs/page.md", PAGE),
            ("docs/decisions/0001-a.md", ""),
            ("node/src/lib.rs", "//! A."),
        ]);
        check(path, text, &tree).len()
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        for bad in [
            "[a](missing.md)",
            "[a](docs/missing.md)",
            "see [a](docs/page.md) and [b](docs/other.md)",
            "[a](../README.md)",
            "[a](docs/page.md#no-such)",
            "[a](docs/page.md#no-heading)",
            "[a](#nothing)",
            "[name]: docs/missing.md",
            "[`code`](missing.md)",
        ] {
            assert_eq!(check_page("README.md", bad), 1, "{bad}");
        }
    }

    #[test]
    fn links_that_lead_somewhere_are_fine() {
        for good in [
            "[a](docs/page.md), [b](docs/page.md#two-words-code), [c](node/src/lib.rs)",
            "[a](docs) [b](./docs/page.md) [c](https://example.com/x#y)",
            "`[a](missing.md)`",
            "```\n[a](missing.md)\n```",
            "# Here\n[a](#here)",
        ] {
            assert_eq!(
                check_page("README.md", good),
                usize::from(good.starts_with("# ")),
                "{good}"
            );
        }
        assert_eq!(check_page("docs/page.md", "[a](../README.md) [b](decisions/0001-a.md)"), 0);
    }

    #[test]
    fn pages_that_comments_name_and_are_not_there_are_found() {
        let tree = Tree::of(&[("docs/page.md", PAGE)]);
        let check = |text| check_comments("a/src/lib.rs", text, &tree).len();
        assert_eq!(check("//! See `docs/page.md`."), 0);
        assert_eq!(check("//! See `docs/page.md` and\n    /// `docs/gone.md`."), 1);
        assert_eq!(check("const PAGE: &str = \"`docs/gone.md`\";"), 0);
    }

    #[test]
    fn named_files_that_are_not_there_are_found() {
        assert_eq!(check_page("README.md", "`node/src/gone.rs`"), 1);
        assert_eq!(
            check_page("README.md", "`node/src/lib.rs` `node/` `target/x` `a/b` `docs/*.md`"),
            0
        );
        assert_eq!(check_page("CHANGELOG.md", "`node/src/gone.rs`"), 0);
    }
}
