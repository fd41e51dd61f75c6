//! Text inside HTML.

/// The text with everything escaped that HTML would take for itself, in an element or in a quoted
/// attribute. Control characters that HTML forbids become a replacement character.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_place() {
        let cases = [
            ("plain gr\u{fc}n", "plain gr\u{fc}n"),
            ("<script>", "&lt;script&gt;"),
            ("a\" onclick='b'", "a&quot; onclick=&#39;b&#39;"),
            ("&amp;", "&amp;amp;"),
            ("a\n\tb\0\u{1b}", "a\n\tb\u{fffd}\u{fffd}"),
        ];
        for (text, expected) in cases {
            assert_eq!(escaped(text), expected);
        }
    }
}
