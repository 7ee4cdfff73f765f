//! Running a program to its end, with an error that says what was run and what it answered.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// How much of a failed program's words an error repeats: the end of them, where the cause is.
const TOLD: usize = 4000;

/// What makes programs in Go start with a third less CPU: their garbage collector works hardest then. Memory is no
/// concern of the lab.
pub const FEWER_COLLECTIONS: (&str, &str) = ("GOGC", "400");

/// Runs `command` with no standard input and returns what it wrote to standard output.
///
/// # Errors
/// When it can't be started or ends with another status than 0; the message then holds the command line and the end of
/// both outputs.
pub fn run(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    judge(&line, &output)
}

/// Like [`run`], with `input` as standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let line = line(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that fails before it reads its input closes the pipe: its own words matter then, not the pipe's.
        let _ = stdin.write_all(input);
    }
    judge(&line, &child.wait_with_output().with_context(|| format!("cannot wait for `{line}`"))?)
}

fn judge(line: &str, output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = [tail(stderr.trim()), tail(stdout.trim())].join("\n");
    bail!("`{line}` failed ({}):\n{}", output.status, told.trim())
}

fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The last part of `text` that is worth repeating.
#[must_use]
pub fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(TOLD);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_repeats_its_words() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("exit status: 3"), "{error}");
        assert!(error.contains("err\nout"), "{error}");
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(run_with_input(&mut Command::new("cat"), b"hello").unwrap(), "hello");
    }

    #[test]
    fn the_tail_keeps_whole_characters() {
        let long = "é".repeat(TOLD);
        assert!(tail(&long).len() <= TOLD && tail(&long).starts_with('é'));
    }
}
