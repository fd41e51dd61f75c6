//! Keys and values are any bytes; here they become text and come back from it.
//!
//! As text, what is printable UTF-8 stands for itself, a backslash is doubled, and every other byte
//! is an escape (`\n`, `\t`, `\r`, `\0`, `\xHH`) that [`crate::statement`] reads back. In JSON a
//! field that is UTF-8 is the string itself, and one that is not is in base64 under its name with
//! `_base64` behind it, so that no reader has to guess which of the two it sees.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value as Json};

/// Bytes of a key or value that an error message quotes; enough to recognise it.
const QUOTED_BYTES_MAX: usize = 48;

/// The bytes as text that [`crate::statement`] reads back, on one line and without a tab.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_escaped(&mut text, c));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn push_escaped(text: &mut String, c: char) {
    match c {
        '\\' => text.push_str("\\\\"),
        '\n' => text.push_str("\\n"),
        '\t' => text.push_str("\\t"),
        '\r' => text.push_str("\\r"),
        '\0' => text.push_str("\\0"),
        c if is_invisible(c) => {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        c => text.push(c),
    }
}

/// Control characters, and those that reorder or hide the text around them on a terminal.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The bytes for a sentence: as text between backquotes, cut short if long.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    if bytes.len() <= QUOTED_BYTES_MAX {
        return format!("`{}`", printable(bytes));
    }
    format!("`{}...` ({} bytes)", printable(&bytes[..QUOTED_BYTES_MAX]), bytes.len())
}

/// The bytes for a table's cell: as text, of at most `chars_max` characters.
pub(crate) fn cell(bytes: &[u8], chars_max: usize) -> String {
    let head = &bytes[..bytes.len().min(chars_max * 4)];
    let text = printable(head);
    if head.len() == bytes.len() && text.chars().count() <= chars_max {
        return text;
    }
    text.chars().take(chars_max.saturating_sub(3)).chain("...".chars()).collect()
}

/// Sets a field of a JSON object to bytes.
pub(crate) fn set_field(object: &mut Map<String, Json>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), Json::from(text)),
        Err(_) => object.insert(format!("{name}_base64"), Json::from(BASE64.encode(bytes))),
    };
}

/// Reads a field back that [`set_field`] set; says what is wrong if it is not there or not bytes.
pub(crate) fn get_field(object: &Map<String, Json>, name: &str) -> Result<Vec<u8>, String> {
    if let Some(text) = object.get(name) {
        let text = text.as_str().ok_or_else(|| format!("`{name}` is not a string"))?;
        return Ok(text.as_bytes().to_vec());
    }
    let encoded = object
        .get(&format!("{name}_base64"))
        .ok_or_else(|| format!("neither `{name}` nor `{name}_base64` is there"))?;
    encoded
        .as_str()
        .and_then(|encoded| BASE64.decode(encoded).ok())
        .ok_or_else(|| format!("`{name}_base64` is not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::words;

    fn read_back(line: &str) -> Vec<Vec<u8>> {
        words(line.as_bytes()).unwrap().into_iter().map(|word| word.bytes).collect()
    }

    #[test]
    fn text_is_one_line_and_reads_back() {
        let cases: &[(&[u8], &str)] = &[
            (b"plain", "plain"),
            (b"", ""),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n"),
            (b"a\tb\nc\rd\0", "a\\tb\\nc\\rd\\0"),
            (b"back\\slash", "back\\\\slash"),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b"\x1b[31mred", "\\x1b[31mred"),
            ("right\u{202e}left".as_bytes(), "right\\xe2\\x80\\xaeleft"),
        ];
        for (bytes, text) in cases {
            assert_eq!(printable(bytes), *text);
            let quoted = format!("\"{}\"", text.replace('"', "\\\""));
            assert_eq!(read_back(&quoted), [bytes.to_vec()], "{text}");
        }
    }

    #[test]
    fn every_byte_reads_back() {
        for byte in 0..=u8::MAX {
            let bytes = [b'a', byte, b'z'];
            let quoted = format!("\"{}\"", printable(&bytes).replace('"', "\\\""));
            assert_eq!(read_back(&quoted), [bytes.to_vec()], "{byte}");
        }
    }

    #[test]
    fn cells_and_quotes_are_bounded() {
        assert_eq!(cell(b"short", 8), "short");
        assert_eq!(cell(b"exactly8", 8), "exactly8");
        assert_eq!(cell(b"a longer one", 8), "a lon...");
        assert_eq!(cell(&[0xff; 1 << 20], 8), "\\xff\\...");
        assert!(quoted(&[0; 1 << 20]).len() < 200);
    }

    #[test]
    fn json_fields_read_back() {
        for bytes in [&b"plain"[..], b"", b"back\\slash", b"\xff\x00"] {
            let mut object = Map::new();
            set_field(&mut object, "key", bytes);
            assert_eq!(get_field(&object, "key").as_deref(), Ok(bytes));
        }
        let mut object = Map::new();
        object.insert("key".to_owned(), Json::from(7));
        object.insert("value_base64".to_owned(), Json::from("not base64!"));
        assert_eq!(get_field(&object, "key"), Err("`key` is not a string".to_owned()));
        assert_eq!(get_field(&object, "value"), Err("`value_base64` is not base64".to_owned()));
        let missing = get_field(&object, "other").unwrap_err();
        assert!(missing.contains("`other_base64`"), "{missing}");
    }
}
