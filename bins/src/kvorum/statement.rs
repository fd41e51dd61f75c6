//! The little language of `kvorum txn` and of the shell: a statement a line, words as in a shell.
//!
//! ```text
//! check KEY absent        put KEY VALUE        # a comment, at the start of a word
//! check KEY present       del KEY              'single quotes take everything as it stands'
//! check KEY = VALUE                            "double quotes and bare words know \n \t \x00"
//! ```

use bytes::Bytes;
use kvorum_replication::{Precondition, Transaction, Write};

/// What [`Statement::parse`] takes, for messages and help.
pub(crate) const FORMS: &str = "`check KEY absent`, `check KEY present`, `check KEY = VALUE`, \
                                `put KEY VALUE` or `del KEY`";

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// From 1, in bytes; where words are well formed but too many or few, there is none.
    pub(crate) column: Option<usize>,
    /// What is wrong, and what would be right.
    pub(crate) what: String,
}

impl SyntaxError {
    fn at(column: usize, what: impl Into<String>) -> Self {
        Self { column: Some(column + 1), what: what.into() }
    }

    /// An error of the whole line.
    pub(crate) fn of_line(what: impl Into<String>) -> Self {
        Self { column: None, what: what.into() }
    }
}

/// One line of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// The transaction happens only if this holds.
    Check(Precondition),
    /// The transaction does this.
    Write(Write),
}

impl Statement {
    /// Makes a statement of a line's words.
    pub(crate) fn parse(words: Vec<Vec<u8>>) -> Result<Self, SyntaxError> {
        let mut words = words.into_iter().map(Bytes::from);
        let Some(verb) = words.next() else {
            return Err(SyntaxError::of_line(format!("an empty statement; write {FORMS}")));
        };
        let arguments: Vec<Bytes> = words.collect();
        match (&verb[..], &arguments[..]) {
            (b"put", [key, value]) => Ok(Self::Write(Write::Put(key.clone(), value.clone()))),
            (b"del", [key]) => Ok(Self::Write(Write::Delete(key.clone()))),
            (b"check", [key, condition]) if &condition[..] == b"absent" => {
                Ok(Self::Check(Precondition::Absent(key.clone())))
            }
            (b"check", [key, condition]) if &condition[..] == b"present" => {
                Ok(Self::Check(Precondition::Present(key.clone())))
            }
            (b"check", [key, condition, value]) if &condition[..] == b"=" => {
                Ok(Self::Check(Precondition::Equals(key.clone(), value.clone())))
            }
            (b"put", given) => Err(wrong_count("put KEY VALUE", given.len(), 2)),
            (b"del", given) => Err(wrong_count("del KEY", given.len(), 1)),
            (b"check", _) => Err(SyntaxError::of_line(
                "a check is `check KEY absent`, `check KEY present` or `check KEY = VALUE`",
            )),
            (verb, _) => Err(SyntaxError::of_line(format!(
                "unknown statement {}; write {FORMS}",
                crate::text::quoted(verb)
            ))),
        }
    }

    /// Adds the statement to a transaction.
    pub(crate) fn add_to(self, transaction: &mut Transaction) {
        match self {
            Self::Check(precondition) => transaction.preconditions.push(precondition),
            Self::Write(write) => transaction.writes.push(write),
        }
    }

    /// The key it speaks of.
    pub(crate) fn key(&self) -> &Bytes {
        match self {
            Self::Check(precondition) => precondition.key(),
            Self::Write(write) => write.key(),
        }
    }

    /// The value it compares with or writes.
    pub(crate) fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Check(Precondition::Equals(_, value)) | Self::Write(Write::Put(_, value)) => {
                Some(value)
            }
            Self::Check(Precondition::Absent(_) | Precondition::Present(_))
            | Self::Write(Write::Delete(_)) => None,
        }
    }

    /// The bytes of its key and value.
    pub(crate) fn bytes(&self) -> usize {
        self.key().len() + self.value().map_or(0, Bytes::len)
    }
}

/// The error of a command that was given too many or too few words.
pub(crate) fn wrong_count(usage: &str, given: usize, wanted: usize) -> SyntaxError {
    let hint = if given > wanted { "; quote what holds a space: \"two words\"" } else { "" };
    SyntaxError::of_line(format!("it is `{usage}`, and {given} words follow the command{hint}"))
}

/// Splits a line into words, taking quotes and escapes away. A comment or nothing is no word.
pub(crate) fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, SyntaxError> {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        match line.get(at) {
            None | Some(b'#') => return Ok(words),
            Some(_) => {
                let (word, end) = word(line, at)?;
                words.push(word);
                at = end;
            }
        }
    }
}

/// Reads the word that starts at `at`; answers where it ends.
fn word(line: &[u8], mut at: usize) -> Result<(Vec<u8>, usize), SyntaxError> {
    let mut word = Vec::new();
    // Where the open quote stands, and which of the two it is.
    let mut quote: Option<(usize, u8)> = None;
    while let Some(&byte) = line.get(at) {
        match (byte, quote) {
            (byte, Some((_, open))) if byte == open => quote = None,
            (_, Some((_, b'\''))) => word.push(byte),
            (b'\\', _) => {
                let (escaped, length) = escape(line, at)?;
                word.push(escaped);
                at += length - 1;
            }
            (b'\'' | b'"', None) => quote = Some((at, byte)),
            (byte, None) if byte.is_ascii_whitespace() => return Ok((word, at)),
            (byte, _) => word.push(byte),
        }
        at += 1;
    }
    match quote {
        Some((start, open)) => {
            let open = char::from(open);
            Err(SyntaxError::at(start, format!("this {open} has no {open} to close it")))
        }
        None => Ok((word, at)),
    }
}

/// Reads the escape whose backslash stands at `at`; answers its byte and its length.
fn escape(line: &[u8], at: usize) -> Result<(u8, usize), SyntaxError> {
    let escaped = match line.get(at + 1) {
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'0') => b'\0',
        Some(b'x') => {
            let digits =
                line.get(at + 2..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
            let digits = digits.filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            return byte.map(|byte| (byte, 4)).ok_or_else(|| {
                SyntaxError::at(at, "\\x wants two hexadecimal digits, as in \\x0a")
            });
        }
        Some(&other) if !other.is_ascii_alphanumeric() => other,
        Some(&other) => {
            let other = char::from(other);
            return Err(SyntaxError::at(
                at,
                format!(
                    "\\{other} is no escape; there are \\n \\t \\r \\0 \\xHH, and \\\\ for a backslash"
                ),
            ));
        }
        None => {
            return Err(SyntaxError::at(at, "a backslash at the end escapes nothing; write \\\\"));
        }
    };
    Ok((escaped, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_into_words() {
        let cases: &[(&str, &[&[u8]])] = &[
            ("", &[]),
            ("   \t ", &[]),
            ("# a comment", &[]),
            ("put a b", &[b"put", b"a", b"b"]),
            ("  put\ta   b  # why", &[b"put", b"a", b"b"]),
            ("a#b # c", &[b"a#b"]),
            ("'' \"\"", &[b"", b""]),
            ("'two words' \"two words\" two\\ words", &[b"two words", b"two words", b"two words"]),
            (r#"'a\n"b' "a\n'b" a\nb"#, &[b"a\\n\"b", b"a\n'b", b"a\nb"]),
            (r#"one'two'"three"\x34"#, &[b"onetwothree4"]),
            (r#"\x00\xFf\\\"\'\#"#, &[b"\x00\xff\\\"'#"]),
            ("put k 'a'\r", &[b"put", b"k", b"a"]),
        ];
        for (line, expected) in cases {
            let expected: Vec<Vec<u8>> = expected.iter().map(|word| word.to_vec()).collect();
            assert_eq!(words(line.as_bytes()), Ok(expected), "{line}");
        }
    }

    #[test]
    fn wrong_lines_say_where() {
        let cases: &[(&[u8], usize, &str)] = &[
            (b"put 'a b", 5, "has no '"),
            (b"put \"a b", 5, "has no \""),
            (b"a \\", 3, "end"),
            (b"a \\q", 3, "no escape"),
            (b"a \\x1", 3, "two hexadecimal digits"),
            (b"a \\x+1", 3, "two hexadecimal digits"),
            (b"a \\x\xff\xff", 3, "two hexadecimal digits"),
        ];
        for (line, column, what) in cases {
            let error = words(line).unwrap_err();
            assert_eq!(error.column, Some(*column), "{error:?}");
            assert!(error.what.contains(what), "{error:?}");
        }
    }

    #[test]
    fn words_make_statements() {
        let k = || Bytes::from_static(b"k");
        let v = || Bytes::from_static(b"v");
        let cases = [
            ("put k v", Statement::Write(Write::Put(k(), v()))),
            ("put k ''", Statement::Write(Write::Put(k(), Bytes::new()))),
            ("del k", Statement::Write(Write::Delete(k()))),
            ("check k absent", Statement::Check(Precondition::Absent(k()))),
            ("check k present", Statement::Check(Precondition::Present(k()))),
            ("check k = v", Statement::Check(Precondition::Equals(k(), v()))),
        ];
        for (line, expected) in cases {
            let words = words(line.as_bytes()).unwrap();
            assert_eq!(Statement::parse(words), Ok(expected), "{line}");
        }
    }

    #[test]
    fn wrong_statements_say_what_would_be_right() {
        let cases = [
            ("put k", "`put KEY VALUE`"),
            ("put k v w", "quote what holds a space"),
            ("del", "`del KEY`"),
            ("del a b", "`del KEY`"),
            ("check k", "`check KEY absent`"),
            ("check k gone", "`check KEY absent`"),
            ("check k = v w", "`check KEY absent`"),
            ("set k v", "unknown statement `set`"),
        ];
        for (line, what) in cases {
            let error = Statement::parse(words(line.as_bytes()).unwrap()).unwrap_err();
            assert!(error.what.contains(what), "{line}: {error:?}");
        }
    }
}
