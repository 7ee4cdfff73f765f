//! The text of systemd service units.

use std::fmt::Write as _;

/// A service unit. Empty fields are omitted.
#[derive(Default)]
pub(super) struct Service<'a> {
    pub(super) description: &'a str,
    pub(super) documentation: &'a str,
    /// The units that start before this one (`After=`).
    pub(super) after: &'a [&'a str],
    /// The units that start with this one, and whose failure does not stop it (`Wants=`).
    pub(super) wants: &'a [&'a str],
    /// The units that this one requires: it stops when they stop (`Requires=`).
    pub(super) requires: &'a [&'a str],
    /// The settings of the section `[Service]`, in order. Commands are formatted by [`command_line`].
    pub(super) settings: Vec<(&'a str, String)>,
}

impl Service<'_> {
    /// Renders the unit file.
    pub(super) fn text(&self) -> String {
        let mut text = format!("[Unit]\nDescription={}\nDocumentation={}\n", self.description, self.documentation);
        for (name, units) in [("After", self.after), ("Wants", self.wants), ("Requires", self.requires)] {
            if !units.is_empty() {
                _ = writeln!(text, "{name}={}", units.join(" "));
            }
        }
        text.push_str("\n[Service]\n");
        for (name, value) in &self.settings {
            _ = writeln!(text, "{name}={value}");
        }
        text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
        text
    }
}

/// Formats a command for `ExecStart=`, one word per line for readability.
pub(super) fn command_line<S: AsRef<str>>(words: &[S]) -> String {
    words.iter().map(|word| quoted(word.as_ref())).collect::<Vec<_>>().join(" \\\n  ")
}

/// Quotes a word for systemd: `%` and `$` are doubled, and words with separators are quoted (systemd.service(5),
/// "Command lines").
fn quoted(word: &str) -> String {
    let word = word.replace('%', "%%").replace('$', "$$");
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\'' | '\\' | ';');
    if !word.is_empty() && word.chars().all(plain) {
        return word;
    }
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\t' => text.push_str("\\t"),
            c if c.is_control() => _ = write!(text, "\\u{:04x}", u32::from(c)),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_words_for_systemd() {
        for (word, written) in [
            ("--a=b,c", "--a=b,c"),
            ("--controllers=*,x", "--controllers=*,x"),
            ("--format=%h $HOME", "\"--format=%%h $$HOME\""),
            ("--json={\"a\": 'b\\c'}", "\"--json={\\\"a\\\": 'b\\\\c'}\""),
            ("--list=a;b", "\"--list=a;b\""),
            ("--tab=\t\u{1}", "\"--tab=\\t\\u0001\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(word), written);
        }
    }
}
