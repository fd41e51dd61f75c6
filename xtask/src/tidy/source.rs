//! What tidy needs to know of a Rust file: the paths that it names, its functions and their length.
//!
//! The file is cut into tokens, so that words in strings and comments are not taken for code, and
//! no further: `use` trees and paths can be read off tokens, and what a name means is the
//! compiler's business.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A Rust file, as far as tidy looks.
#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the root, with slashes.
    pub(super) path: String,
    /// Every path of two or more parts, and everything imported.
    pub(super) names: Vec<Name>,
    /// Every function with a body.
    pub(super) functions: Vec<Function>,
    /// The lines of `#[ignore]`.
    pub(super) ignored_tests: Vec<usize>,
    /// It says `#![no_std]`.
    pub(super) no_std: bool,
}

/// A path that the code names, such as `std::fs::File`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// A glob's last part is `*`.
    pub(super) parts: Vec<String>,
    pub(super) line: usize,
    /// It stands in a `use` item, and thus may be the mere beginning of what is named later.
    pub(super) imported: bool,
    /// Only tests are built with it.
    pub(super) in_test: bool,
    /// How many modules of this file it stands in.
    pub(super) inline_modules: Vec<String>,
}

/// A function.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    /// Lines of its body that bear code, which neither comments nor empty lines do.
    pub(super) code_lines: usize,
    /// It carries `#[expect(clippy::too_many_lines, reason = ...)]`. Clippy counts alike, and
    /// reports an expectation that is not met any more.
    pub(super) length_expected: bool,
}

impl Source {
    /// Cuts a file into tokens and reads them.
    pub(super) fn parse(path: &str, text: &str) -> Result<Self> {
        let tokens: TokenStream =
            text.parse().map_err(|error| anyhow!("this is no Rust: {error}"))?;
        let in_tests_folder = path.split('/').any(|part| matches!(part, "tests" | "tests.rs"));
        let source = Self {
            path: path.to_owned(),
            names: Vec::new(),
            functions: Vec::new(),
            ignored_tests: Vec::new(),
            no_std: false,
        };
        let mut reader = Reader { source, modules: Vec::new() };
        reader.read(tokens, in_tests_folder);
        Ok(reader.source)
    }
}

struct Reader {
    source: Source,
    modules: Vec<String>,
}

/// What the attributes before an item say of it.
#[derive(Clone, Copy, Default)]
struct Attributes {
    test: bool,
    length_expected: bool,
}

impl Reader {
    fn read(&mut self, tokens: TokenStream, in_test: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut in_test = in_test;
        let mut attributes = Attributes::default();
        let mut at = 0;
        while at < tokens.len() {
            at += match &tokens[at] {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let inner = is_punct(tokens.get(at + 1), '!');
                    match tokens.get(at + 1 + usize::from(inner)) {
                        Some(TokenTree::Group(group)) if is_bracket(group) => {
                            self.attribute(group, &mut attributes);
                            in_test |= inner && attributes.test;
                            self.read(group.stream(), in_test);
                            2 + usize::from(inner)
                        }
                        _ => 1,
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => 1,
                TokenTree::Ident(word) if word == "use" && !is_punct(tokens.get(at + 1), '<') => {
                    let end = tokens[at..].iter().position(|token| is_punct(Some(token), ';'));
                    let end = end.map_or(tokens.len(), |end| at + end);
                    let in_test = in_test || attributes.test;
                    self.use_tree(&tokens[at + 1..end], &[], in_test);
                    end - at
                }
                TokenTree::Ident(_) => {
                    let in_test = in_test || attributes.test;
                    self.word(&tokens, at, in_test, attributes.length_expected)
                }
                TokenTree::Group(group) => {
                    self.read(group.stream(), in_test || attributes.test);
                    1
                }
            };
            // The item that the attributes stood before has ended.
            if is_punct(tokens.get(at - 1), ';') || brace(&tokens[at - 1]).is_some() {
                attributes = Attributes::default();
            }
        }
    }

    /// Reads an item's beginning or a path at `at`; answers how many tokens it took.
    fn word(&mut self, tokens: &[TokenTree], at: usize, in_test: bool, expected: bool) -> usize {
        let (word, line) = (tokens[at].to_string(), line(&tokens[at]));
        match (word.as_str(), tokens.get(at + 1), tokens.get(at + 2)) {
            ("mod", Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) => {
                self.modules.push(name.to_string());
                self.read(body.stream(), in_test);
                self.modules.pop();
                return 3;
            }
            ("fn", Some(TokenTree::Ident(name)), _) => {
                let rest = tokens[at..].iter().take_while(|token| !is_punct(Some(token), ';'));
                if let Some(body) = rest.filter_map(brace).next() {
                    self.source.functions.push(Function {
                        name: name.to_string(),
                        line,
                        code_lines: code_lines(body),
                        length_expected: expected,
                    });
                }
                return 2;
            }
            ("extern", Some(TokenTree::Ident(item)), Some(TokenTree::Ident(name)))
                if item == "crate" =>
            {
                self.name(vec![name.to_string()], line, true, in_test);
                return 3;
            }
            _ => {}
        }
        let mut parts = vec![word];
        let mut end = at + 1;
        while is_punct(tokens.get(end), ':') && is_punct(tokens.get(end + 1), ':') {
            let Some(TokenTree::Ident(part)) = tokens.get(end + 2) else { break };
            parts.push(part.to_string());
            end += 3;
        }
        if parts.len() > 1 {
            self.name(parts, line, false, in_test);
        }
        end - at
    }

    /// Reads `a::{b, c::*, d as e}` after the parts in `before`.
    fn use_tree(&mut self, tokens: &[TokenTree], before: &[String], in_test: bool) {
        for branch in tokens.split(|token| is_punct(Some(token), ',')) {
            let mut parts = before.to_vec();
            let mut nested = false;
            for token in branch {
                match token {
                    TokenTree::Ident(word) if word == "as" => break,
                    // `{self}` imports what the braces belong to.
                    TokenTree::Ident(word) if word == "self" && !before.is_empty() => {}
                    TokenTree::Ident(word) => parts.push(word.to_string()),
                    TokenTree::Punct(punct) if punct.as_char() == '*' => parts.push("*".to_owned()),
                    TokenTree::Group(group) => {
                        let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                        self.use_tree(&inside, &parts, in_test);
                        nested = true;
                    }
                    TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                }
            }
            if let (false, Some(first)) = (nested, branch.first()) {
                self.name(parts, line(first), true, in_test);
            }
        }
    }

    fn name(&mut self, parts: Vec<String>, line: usize, imported: bool, in_test: bool) {
        let inline_modules = self.modules.clone();
        self.source.names.push(Name { parts, line, imported, in_test, inline_modules });
    }

    fn attribute(&mut self, group: &Group, attributes: &mut Attributes) {
        let text = group.stream().to_string().replace(' ', "");
        attributes.test |= text == "test" || text == "cfg(test)";
        attributes.length_expected |= text.starts_with("expect(")
            && text.contains("clippy::too_many_lines")
            && text.contains("reason=");
        self.source.no_std |= text == "no_std";
        if text == "ignore" || text.starts_with("ignore=") {
            self.source.ignored_tests.push(group.span_open().start().line);
        }
    }
}

/// How many lines between the braces bear code; a comment is no token, and neither is its line.
fn code_lines(body: &Group) -> usize {
    fn collect(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
        for token in tokens {
            match &token {
                TokenTree::Group(group) => {
                    lines.insert(group.span_open().start().line);
                    lines.insert(group.span_close().start().line);
                    collect(group.stream(), lines);
                }
                token => lines.extend(token.span().start().line..=token.span().end().line),
            }
        }
    }
    let mut lines = BTreeSet::new();
    collect(body.stream(), &mut lines);
    lines.len()
}

fn line(token: &TokenTree) -> usize {
    token.span().start().line
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_bracket(group: &Group) -> bool {
    group.delimiter() == Delimiter::Bracket
}

fn brace(token: &TokenTree) -> Option<&Group> {
    match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let source = Source::parse("a/src/lib.rs", text).unwrap();
        let mark = |name: &Name| if name.in_test { " (test)" } else { "" };
        source.names.iter().map(|name| format!("{}{}", name.parts.join("::"), mark(name))).collect()
    }

    #[test]
    fn use_trees_are_flattened() {
        assert_eq!(
            names("use std::{fs::{self, File as F}, io}; pub(crate) use ::a::b::*; use bytes;"),
            ["std::fs", "std::fs::File", "std::io", "a::b::*", "bytes"]
        );
    }

    #[test]
    fn paths_are_found_wherever_they_stand() {
        assert_eq!(
            names(
                "impl a::Trait for Vec<b::Type> { fn f(x: c::D) { e::f(g::<h::I>()); m!(j::k) } }"
            ),
            ["a::Trait", "b::Type", "c::D", "e::f", "h::I", "j::k"]
        );
        assert_eq!(names("#[derive(serde::Serialize)] struct S; extern crate alloc;").len(), 2);
    }

    #[test]
    fn strings_and_comments_are_no_code() {
        assert_eq!(
            names("// std::fs\n/// [`std::fs`]\nconst A: &str = \"std::fs::read\";").len(),
            0
        );
    }

    #[test]
    fn test_code_is_told_from_the_rest() {
        let text = "use a::b; #[cfg(test)] mod tests { use c::d; #[test] fn t() { e::f() } } fn g() { h::i() }";
        assert_eq!(names(text), ["a::b", "c::d (test)", "e::f (test)", "h::i"]);
        assert_eq!(names("#![cfg(test)] use a::b;"), ["a::b (test)"]);
        let source = Source::parse("a/tests/b.rs", "use a::b;").unwrap();
        assert!(source.names[0].in_test);
    }

    #[test]
    fn inline_modules_are_remembered() {
        let source = Source::parse("a/src/lib.rs", "mod m { mod n { use super::x; } }").unwrap();
        assert_eq!(source.names[0].inline_modules, ["m", "n"]);
    }

    #[test]
    fn functions_are_counted_in_lines_of_code() {
        let text = "
            #[expect(clippy::too_many_lines, reason = \"one table\")]
            fn long() {
                // a comment

                let a = 1;
                call(
                    a,
                );
            }
            trait T { fn no_body(&self) -> [u8; 2]; fn body(&self) {} }
            type F = fn(u8) -> u8;";
        let source = Source::parse("a/src/lib.rs", text).unwrap();
        let found: Vec<(&str, usize, usize, bool)> = source
            .functions
            .iter()
            .map(|f| (f.name.as_str(), f.line, f.code_lines, f.length_expected))
            .collect();
        assert_eq!(found, [("long", 3, 4, true), ("body", 11, 0, false)]);
    }

    #[test]
    fn ignored_tests_are_found() {
        let source = Source::parse("a/src/lib.rs", "#[test]\n#[ignore]\nfn t() {}").unwrap();
        assert_eq!(source.ignored_tests, [2]);
        let source =
            Source::parse("a/src/lib.rs", "#[test]\n#[ignore = \"slow\"] fn t() {}").unwrap();
        assert_eq!(source.ignored_tests, [2]);
    }
}
