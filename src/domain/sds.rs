//! Words as Redis quotes them in its config and in the manifests of append-only files (sds.c). Never reads a file.

use std::fmt::Write as _;

/// The words of a line; none if a quote is not closed well.
pub(super) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after.trim_ascii_start();
    }
    Some(words)
}

/// A name as sds.c:sdscatrepr writes it, where sdsneedsrepr asks for quotes.
pub(super) fn quoted(name: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'\'');
    if name.bytes().all(|byte| is_plain(&byte)) {
        return name.to_owned();
    }
    let mut text = String::from("\"");
    for byte in name.bytes() {
        match byte {
            b'\\' | b'"' => text.extend(['\\', char::from(byte)]),
            b'\n' => text += "\\n",
            b'\r' => text += "\\r",
            b'\t' => text += "\\t",
            0x07 => text += "\\a",
            0x08 => text += "\\b",
            b' '..=b'~' => text.push(char::from(byte)),
            other => {
                let _ = write!(text, "\\x{other:02x}");
            }
        }
    }
    text.push('"');
    text
}

fn word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        match rest {
            [] => return Some((word, rest)),
            [byte, ..] if byte.is_ascii_whitespace() => return Some((word, rest)),
            [quote @ (b'"' | b'\''), after @ ..] => {
                rest = closing(*quote, after, &mut word)?;
                // A closing quote ends the word: Redis refuses "a"b.
                return rest.first().is_none_or(u8::is_ascii_whitespace).then_some((word, rest));
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

fn closing<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [byte, after @ ..] if *byte == quote => return Some(after),
            [b'\\', b'\'', after @ ..] if quote == b'\'' => {
                word.push(b'\'');
                rest = after;
            }
            [b'\\', b'x', high, low, after @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(*high)? * 16 + digit(*low)?;
                word.push(u8::try_from(value).ok()?);
                rest = after;
            }
            [b'\\', byte, after @ ..] if quote == b'"' => {
                word.push(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_read_as_redis_reads_them() {
        let words = |line: &str| {
            let words = split(line.as_bytes())?.into_iter();
            Some(words.map(|word| String::from_utf8(word).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(words("a  'b c' d").unwrap(), ["a", "b c", "d"]);
        assert_eq!(words(r#"a "b\x41\n\"" 'it\'s'"#).unwrap(), ["a", "bA\n\"", "it's"]);
        assert_eq!(words(r#"a """#).unwrap(), ["a", ""]);
        assert_eq!(words(r#"a "b"#), None);
        assert_eq!(words(r#"a "b"c"#), None);
    }

    #[test]
    fn odd_names_are_quoted_as_redis_quotes_them() {
        assert_eq!(quoted("a-b_c.1"), "a-b_c.1");
        // Redis writes this one bare and cannot read it again.
        assert_eq!(quoted("it's"), "\"it's\"");
        assert_eq!(quoted("my file"), "\"my file\"");
        assert_eq!(quoted("a\"b\\c\td\u{7}é"), "\"a\\\"b\\\\c\\td\\a\\xc3\\xa9\"");
    }

    #[test]
    fn what_is_quoted_is_read_again() {
        for name in ["a", "a b", "a\"b\\c\td\u{7}é\u{1}", "'", "it's \n"] {
            assert_eq!(split(quoted(name).as_bytes()).unwrap(), [name.as_bytes()]);
        }
    }
}
