//! The text of a unit.

use std::fmt::Write as _;

/// A service. What is left empty is not written.
#[derive(Default)]
pub(super) struct Service<'a> {
    pub(super) description: &'a str,
    pub(super) documentation: &'a str,
    /// Units that are started before it.
    pub(super) after: &'a [&'a str],
    /// Units that are started with it, and without which it starts all the same.
    pub(super) wants: &'a [&'a str],
    /// Units without which it does not start, and with which it stops.
    pub(super) requires: &'a [&'a str],
    /// The settings of its `[Service]` section, in their order; commands among them are [`command_line`]'s.
    pub(super) settings: Vec<(&'a str, String)>,
}

impl Service<'_> {
    /// The unit's file.
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

/// A command as `ExecStart=` takes it: a word a line, for people who read it.
pub(super) fn command_line<S: AsRef<str>>(words: &[S]) -> String {
    words.iter().map(|word| quoted(word.as_ref())).collect::<Vec<_>>().join(" \\\n  ")
}

/// A word that systemd takes as it stands: `%` and `$` are doubled, and what would split it or end it is quoted
/// (systemd.service(5), "Command lines").
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
    fn a_word_reaches_the_program_as_it_was() {
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
