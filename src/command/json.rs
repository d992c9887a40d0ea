//! How does a report look to a program?
//!
//! As JSON (RFC 8259), written only. serde_json would add five packages, sort the keys, and leave U+007F to U+009F unescaped, which
//! terminals obey.

use std::fmt::{self, Write};

/// A JSON value.
#[derive(Debug, Clone)]
pub enum Json {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Number(u64),
    /// A text from any source; escaped when written.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    /// A string, from anything that can be displayed.
    pub fn text(value: impl fmt::Display) -> Self {
        Self::String(value.to_string())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(truth) => truth.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::String(text) => write_string(f, text),
            Self::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    f.write_char(if index == 0 { '[' } else { ',' })?;
                    value.fmt(f)?;
                }
                f.write_str(if values.is_empty() { "[]" } else { "]" })
            }
            Self::Object(values) => {
                for (index, (name, value)) in values.iter().enumerate() {
                    f.write_char(if index == 0 { '{' } else { ',' })?;
                    write_string(f, name)?;
                    f.write_char(':')?;
                    value.fmt(f)?;
                }
                f.write_str(if values.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(f, "\\{character}")?,
            // Control characters beyond ASCII as well: JSON allows them, but a terminal obeys them.
            _ if character.is_control() => write!(f, "\\u{:04x}", u32::from(character))?,
            _ => f.write_char(character)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_library_reads_the_json_that_was_meant() {
        let hostile = "\"\\/\u{0}\u{1b}[2J\n\u{7f}\u{85}ü€😀";
        let value = Json::Object(vec![
            ("none", Json::Null),
            ("truth", Json::Bool(true)),
            ("number", Json::Number(u64::MAX)),
            ("text", Json::text(hostile)),
            ("empty", Json::Array(vec![])),
            ("object", Json::Object(vec![])),
            (
                "list",
                Json::Array(vec![Json::Number(1), Json::Bool(false)]),
            ),
        ]);
        let written = value.to_string();
        assert!(!written.contains(char::is_control), "{written}");
        let read: serde_json::Value = serde_json::from_str(&written).expect("JSON");
        let expected = serde_json::json!({
            "none": null, "truth": true, "number": u64::MAX, "text": hostile, "empty": [], "object": {},
            "list": [1, false],
        });
        assert_eq!(read, expected);
    }
}
