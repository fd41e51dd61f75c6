//! The little language of `kvorum txn` and of the shell: a statement a line, words as in a shell.
//!
//! ```text
//! check KEY absent        put KEY VALUE        # a comment, at the start of a word
//! check KEY present       del KEY              'single quotes take everything as it stands'
//! check KEY = VALUE       cas KEY OLD NEW      "double quotes and bare words know \n \t \x00"
//! get KEY...              add KEY NUMBER
//! ```

use std::slice;

use bytes::Bytes;
use kvorum_replication::{Key, Precondition, Value, Write};

/// What [`Statement::parse`] takes, for messages and help.
pub(crate) const FORMS: &str = "`check KEY absent`, `check KEY present`, `check KEY = VALUE`, \
                                `get KEY...`, `put KEY VALUE`, `del KEY`, `cas KEY OLD NEW` or \
                                `add KEY NUMBER`";

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// From 1, in bytes; an error of the whole line has none.
    pub(crate) column: Option<usize>,
    /// What is wrong, and what would be right.
    pub(crate) what: String,
}

impl SyntaxError {
    /// An error at this byte of the line, from 0.
    fn at(byte: usize, what: impl Into<String>) -> Self {
        Self { column: Some(byte + 1), what: what.into() }
    }

    /// An error of the whole line.
    pub(crate) fn of_line(what: impl Into<String>) -> Self {
        Self { column: None, what: what.into() }
    }
}

/// A word of a line, without its quotes and escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Where it begins in the line, from 0, in bytes.
    at: usize,
    /// What it says.
    pub(crate) bytes: Vec<u8>,
}

/// One line of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// The transaction happens only if this holds.
    Check(Precondition),
    /// The transaction shows these keys.
    Get(Vec<Key>),
    /// The transaction does this.
    Write(Write),
    /// The transaction happens only if the key has the first value, and gives it the second.
    CompareAndSet(Key, Value, Value),
    /// The transaction adds this to the whole number that the key holds; a missing one is 0.
    Add(Key, i64),
}

impl Statement {
    /// Makes a statement of a line's words.
    pub(crate) fn parse(words: &[Word]) -> Result<Self, SyntaxError> {
        let Some((verb, given)) = words.split_first() else {
            return Err(SyntaxError::of_line(format!("an empty statement; write {FORMS}")));
        };
        let bytes = |word: &Word| Bytes::copy_from_slice(&word.bytes);
        match (&verb.bytes[..], given) {
            (b"put", [key, value]) => Ok(Self::Write(Write::Put(bytes(key), bytes(value)))),
            (b"del", [key]) => Ok(Self::Write(Write::Delete(bytes(key)))),
            (b"get", [_, ..]) => Ok(Self::Get(given.iter().map(bytes).collect())),
            (b"cas", [key, old, new]) => {
                Ok(Self::CompareAndSet(bytes(key), bytes(old), bytes(new)))
            }
            (b"add", [key, number]) => Ok(Self::Add(bytes(key), whole_number(number)?)),
            (b"check", _) => check(verb, given).map(Self::Check),
            (b"put", _) => Err(wrong_count("put KEY VALUE", words, 2)),
            (b"del", _) => Err(wrong_count("del KEY", words, 1)),
            (b"get", _) => Err(wrong_count("get KEY...", words, 1)),
            (b"cas", _) => Err(wrong_count("cas KEY OLD NEW", words, 3)),
            (b"add", _) => Err(wrong_count("add KEY NUMBER", words, 2)),
            (unknown, _) => Err(SyntaxError::at(
                verb.at,
                format!("unknown statement {}; write {FORMS}", crate::text::quoted(unknown)),
            )),
        }
    }

    /// The keys it speaks of.
    pub(crate) fn keys(&self) -> &[Key] {
        match self {
            Self::Check(precondition) => slice::from_ref(precondition.key()),
            Self::Get(keys) => keys,
            Self::Write(write) => slice::from_ref(write.key()),
            Self::CompareAndSet(key, ..) | Self::Add(key, _) => slice::from_ref(key),
        }
    }

    /// The values it compares with and writes.
    pub(crate) fn values(&self) -> Vec<&Value> {
        match self {
            Self::Check(Precondition::Equals(_, value)) | Self::Write(Write::Put(_, value)) => {
                vec![value]
            }
            Self::CompareAndSet(_, old, new) => vec![old, new],
            Self::Check(Precondition::Absent(_) | Precondition::Present(_))
            | Self::Write(Write::Delete(_))
            | Self::Get(_)
            | Self::Add(..) => Vec::new(),
        }
    }

    /// The bytes of its keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.keys().iter().chain(self.values()).map(Bytes::len).sum()
    }
}

fn check(verb: &Word, given: &[Word]) -> Result<Precondition, SyntaxError> {
    let bytes = |word: &Word| Bytes::copy_from_slice(&word.bytes);
    match given {
        [key, condition] if condition.bytes == b"absent" => Ok(Precondition::Absent(bytes(key))),
        [key, condition] if condition.bytes == b"present" => Ok(Precondition::Present(bytes(key))),
        [key, condition, value] if condition.bytes == b"=" => {
            Ok(Precondition::Equals(bytes(key), bytes(value)))
        }
        _ => Err(SyntaxError::at(
            given.get(1).unwrap_or(verb).at,
            "a check is `check KEY absent`, `check KEY present` or `check KEY = VALUE`",
        )),
    }
}

fn whole_number(word: &Word) -> Result<i64, SyntaxError> {
    parse_whole_number(&word.bytes).ok_or_else(|| {
        let quoted = crate::text::quoted(&word.bytes);
        SyntaxError::at(word.at, format!("{quoted} is no whole number of 64 bits, such as 1 or -5"))
    })
}

/// A whole number as `add` knows it, in decimal digits.
pub(crate) fn parse_whole_number(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// The error of a command whose first word is followed by too many or too few others.
pub(crate) fn wrong_count(usage: &str, words: &[Word], wanted: usize) -> SyntaxError {
    let given = words.len().saturating_sub(1);
    // The first that is too many, or else the command that wants more.
    let place = words.get(wanted + 1).or(words.first());
    let hint = if given > wanted { "; quote what holds a space: \"two words\"" } else { "" };
    let follow = if given == 1 { "word follows" } else { "words follow" };
    SyntaxError {
        column: place.map(|word| word.at + 1),
        what: format!("it is `{usage}`, and {given} {follow} the command{hint}"),
    }
}

/// Splits a line into words, taking quotes and escapes away. A comment or nothing is no word.
pub(crate) fn words(line: &[u8]) -> Result<Vec<Word>, SyntaxError> {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        match line.get(at) {
            None | Some(b'#') => return Ok(words),
            Some(_) => {
                let (bytes, end) = word(line, at)?;
                words.push(Word { at, bytes });
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
            let found = words(line.as_bytes()).unwrap();
            let found: Vec<Vec<u8>> = found.into_iter().map(|word| word.bytes).collect();
            assert_eq!(found, expected, "{line}");
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
            ("get k", Statement::Get(vec![k()])),
            ("get k v k", Statement::Get(vec![k(), v(), k()])),
            ("cas k v ''", Statement::CompareAndSet(k(), v(), Bytes::new())),
            ("add k 1", Statement::Add(k(), 1)),
            ("add k -05", Statement::Add(k(), -5)),
        ];
        for (line, expected) in cases {
            let words = words(line.as_bytes()).unwrap();
            assert_eq!(Statement::parse(&words), Ok(expected), "{line}");
        }
    }

    #[test]
    fn wrong_statements_say_what_would_be_right() {
        let cases = [
            ("put k", 1, "`put KEY VALUE`"),
            ("  put k v w", 11, "quote what holds a space"),
            ("del", 1, "`del KEY`"),
            ("del a b", 7, "`del KEY`"),
            ("get", 1, "`get KEY...`"),
            ("cas k v", 1, "`cas KEY OLD NEW`"),
            ("cas k v w x", 11, "`cas KEY OLD NEW`"),
            ("add k", 1, "`add KEY NUMBER`"),
            ("add k one", 7, "`one` is no whole number"),
            ("add k 9223372036854775808", 7, "no whole number"),
            ("check k", 1, "`check KEY absent`"),
            ("check k gone", 9, "`check KEY absent`"),
            ("check 'k k' = v w", 13, "`check KEY absent`"),
            ("  set k v", 3, "unknown statement `set`"),
        ];
        for (line, column, what) in cases {
            let error = Statement::parse(&words(line.as_bytes()).unwrap()).unwrap_err();
            assert!(error.what.contains(what), "{line}: {error:?}");
            assert_eq!(error.column, Some(column), "{line}: {error:?}");
        }
    }
}
