//! systemd units on a machine, each run by a small supervisor that starts it again as systemd would.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Machine;
use crate::parts::Parts;
use crate::process::Process;
use crate::unit::{Exec, Restart, Unit};

/// Runs what the script before it has in `before` and `start`. Commands run in the background, since a shell hears
/// signals only while it waits.
const SUPERVISOR: &str = include_str!("supervisor.sh");

impl Machine {
    /// Runs the service of a systemd unit (with the texts of its drop-ins appended, if it has any) until
    /// [`Machine::stop_unit`], starting it again as the unit says; a oneshot is run to its end. The variables in its
    /// `EnvironmentFile=`s are read now. It logs to `<machine>-<name>.log` in the lab's folder.
    ///
    /// # Errors
    /// When the unit can't be understood, runs already, or a oneshot fails.
    pub fn start_unit(&mut self, name: &str, text: &str) -> Result<()> {
        self.start_unit_with(name, text, &[])
    }

    /// Like [`Machine::start_unit`] with further arguments at the end of its command, for what only the lab needs: see
    /// [`Machine::lab_kubelet_flags`].
    ///
    /// # Errors
    /// As [`Machine::start_unit`].
    pub fn start_unit_with(&mut self, name: &str, text: &str, further: &[String]) -> Result<()> {
        if self.units.get_mut(name).is_some_and(Process::is_running) {
            bail!("the unit {name} runs on {} already", self.name);
        }
        let what = || format!("the unit {name} of machine {}", self.name);
        let unit = Unit::parse(text).with_context(what)?;
        let mut files = Vec::new();
        for file in unit.environment_files() {
            match self.read_file(&file.path) {
                Ok(content) => files.push(String::from_utf8_lossy(&content).into_owned()),
                Err(_) if file.optional => {}
                Err(error) => return Err(error).with_context(what),
            }
        }
        let environment = unit.environment(&files).with_context(what)?;
        let mut commands = unit.commands(&environment).with_context(what)?;
        if let Some(last) = commands.last_mut() {
            last.words.extend_from_slice(further);
        }
        let mut script = String::new();
        for (name, value) in &environment {
            writeln!(script, "export {name}={}", quoted(value))?;
        }
        for folder in &unit.folders {
            writeln!(script, "mkdir -p {}", quoted(folder))?;
        }
        writeln!(script, "cd {}", quoted(unit.working_directory.as_deref().unwrap_or("/")))?;
        script += &function("before", &unit.commands_before(&environment).with_context(what)?);
        script += &function("start", &commands);
        let restart = match unit.restart {
            _ if unit.oneshot => "no",
            Restart::No => "no",
            Restart::OnFailure => "on-failure",
            Restart::Always => "always",
        };
        writeln!(script, "restart={restart}\npause={}", unit.restart_after.as_secs_f64())?;
        script += SUPERVISOR;

        let line = ["sh", "-c", &script];
        if unit.oneshot {
            // It may have ended before anybody could find it inside.
            let full = format!("{}-{name}", self.name);
            let log = self.site.log(&full);
            let mut process = Process::start(&full, &self.site.id, &mut self.enter(&line)?, log)?;
            return process.wait_for_success().with_context(what);
        }
        let process = self.spawn(name, &line)?;
        self.units.insert(name.to_owned(), process);
        Ok(())
    }

    /// Asks a unit to end, as `systemctl stop` does, and waits for that.
    ///
    /// # Errors
    /// When it does not run, or had to be killed.
    pub fn stop_unit(&mut self, name: &str) -> Result<()> {
        let Some(mut process) = self.units.remove(name) else { bail!("no unit {name} was started on {}", self.name) };
        process.stop(Duration::from_secs(30))
    }

    /// For polling code: an error with the end of the unit's log if neither it nor its supervisor runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_unit(&mut self, name: &str) -> Result<()> {
        self.units.get_mut(name).with_context(|| format!("no unit {name} was started"))?.check_running()
    }

    /// Where the unit's log is. It says too when it was started again.
    #[must_use]
    pub fn unit_log(&self, name: &str) -> Option<PathBuf> {
        self.units.get(name).map(|process| process.log().to_owned())
    }

    /// Puts programs of `parts` where a unit's `ExecStart=` has them, such as `/usr/local/bin`.
    ///
    /// # Errors
    /// When a link can't be made.
    pub fn install(&self, parts: &Parts, programs: &[&str], folder: &str) -> Result<()> {
        self.run(&["mkdir", "-p", folder])?;
        for program in programs {
            self.run(&["ln", "-sfn", &parts.program_on_machine(program), &format!("{folder}/{program}")])?;
        }
        Ok(())
    }
}

/// A shell function that runs these commands one after the other until one fails.
fn function(name: &str, commands: &[Exec]) -> String {
    let mut text = format!("{name}() {{\n:\n");
    for (index, command) in commands.iter().enumerate() {
        let words: Vec<_> = command.words.iter().map(|word| quoted(word)).collect();
        let after = if command.may_fail { "|| :" } else { "|| return" };
        // The last one takes the place of the shell that it is started in, and with it its signals.
        let exec = if name == "start" && index + 1 == commands.len() { "exec " } else { "" };
        let _ = writeln!(text, "{exec}{} {after}", words.join(" "));
    }
    text + "}\n"
}

/// For a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_shell_as_they_are() {
        let words = vec!["/bin/a".to_owned(), "it's $HOME".to_owned()];
        let text = function("start", &[Exec { words, may_fail: false }]);
        assert_eq!(text, "start() {\n:\nexec '/bin/a' 'it'\\''s $HOME' || return\n}\n");
    }
}
