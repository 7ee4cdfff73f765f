//! systemd units as the lab runs them: there is no systemd on its machines, but what a unit says is run as it says it.
//!
//! Understood are sections, comments, continued lines, quotes, `$VARIABLE` and `${VARIABLE}`, drop-ins that are appended
//! to their unit, and of a service: `Type=oneshot`, `ExecStartPre=`, `ExecStart=`, `Environment=`, `EnvironmentFile=`,
//! `WorkingDirectory=`, `RuntimeDirectory=`, `StateDirectory=`, `Restart=` and `RestartSec=`. Settings that bound a
//! service (limits, cgroups, security) are left out; one that would run it as somebody else is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A command line of a unit, not yet split into words.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    text: String,
    /// Whether its failure counts as success (`-` before it).
    may_fail: bool,
}

/// When systemd would start the process again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// After another status than 0, or a signal.
    OnFailure,
    /// Whenever it ends.
    Always,
}

/// The service in a unit's text.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    before: Vec<Line>,
    start: Vec<Line>,
    environment: BTreeMap<String, String>,
    files: Vec<EnvironmentFile>,
    /// Where it runs.
    pub working_directory: Option<String>,
    /// Folders that it wants, with the path.
    pub folders: Vec<String>,
    /// Whether it is done once it has ended.
    pub oneshot: bool,
    /// When it is started again.
    pub restart: Restart,
    /// How long after its end.
    pub restart_after: Duration,
}

/// A file with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentFile {
    /// Its path.
    pub path: String,
    /// Whether it may be missing (`-` before it).
    pub optional: bool,
}

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// Whether its failure counts as success.
    pub may_fail: bool,
}

impl Unit {
    /// Reads the text of a unit, perhaps with those of its drop-ins after it.
    ///
    /// # Errors
    /// When it has no `ExecStart=`, or says something that the lab can't do.
    pub fn parse(text: &str) -> Result<Self> {
        // systemd's own default.
        let mut unit = Self { restart_after: Duration::from_millis(100), ..Self::default() };
        for (key, value) in service_settings(text) {
            unit.set(&key, &value).with_context(|| format!("{key}={value}"))?;
        }
        match unit.start.len() {
            0 => bail!("the unit has no ExecStart="),
            1 => Ok(unit),
            _ if unit.oneshot => Ok(unit),
            _ => bail!("only a unit with Type=oneshot may have several ExecStart="),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "Type" => self.oneshot = value == "oneshot",
            "ExecStart" => add_line(&mut self.start, value),
            "ExecStartPre" => add_line(&mut self.before, value),
            "Environment" if value.is_empty() => self.environment.clear(),
            "Environment" => {
                for word in words(value)? {
                    let (name, value) = word.split_once('=').context("it has no =")?;
                    self.environment.insert(name.to_owned(), value.to_owned());
                }
            }
            "EnvironmentFile" if value.is_empty() => self.files.clear(),
            "EnvironmentFile" => self.files.push(match value.strip_prefix('-') {
                Some(path) => EnvironmentFile { path: path.to_owned(), optional: true },
                None => EnvironmentFile { path: value.to_owned(), optional: false },
            }),
            "WorkingDirectory" => self.working_directory = Some(value.to_owned()),
            "RuntimeDirectory" => self.folders.extend(value.split_whitespace().map(|name| format!("/run/{name}"))),
            "StateDirectory" => self.folders.extend(value.split_whitespace().map(|name| format!("/var/lib/{name}"))),
            "Restart" => {
                self.restart = match value {
                    "always" => Restart::Always,
                    "on-failure" | "on-abnormal" | "on-abort" | "on-watchdog" => Restart::OnFailure,
                    "no" => Restart::No,
                    _ => bail!("unknown"),
                };
            }
            "RestartSec" => self.restart_after = duration(value)?,
            "User" | "Group" if value == "root" => {}
            "User" | "Group" | "DynamicUser" | "RootDirectory" => bail!("the lab runs units as root only"),
            _ => {}
        }
        Ok(())
    }

    /// The files with variables, which are read on the machine.
    #[must_use]
    pub fn environment_files(&self) -> &[EnvironmentFile] {
        &self.files
    }

    /// All its variables, given the texts of the files that there are, in their order. What a file says wins.
    ///
    /// # Errors
    /// When a quote is not closed.
    pub fn environment(&self, files: &[String]) -> Result<BTreeMap<String, String>> {
        let mut environment = self.environment.clone();
        for file in files {
            for line in logical_lines(file) {
                let Some((name, value)) = line.split_once('=') else { continue };
                // A file's value is one word, whatever it has inside quotes.
                environment.insert(name.trim().to_owned(), words(value)?.join(" "));
            }
        }
        Ok(environment)
    }

    /// The commands before the service, split into words.
    ///
    /// # Errors
    /// When a quote is not closed or a line is empty.
    pub fn commands_before(&self, environment: &BTreeMap<String, String>) -> Result<Vec<Exec>> {
        self.before.iter().map(|line| line.split(environment)).collect()
    }

    /// The service's command, or all commands of a oneshot, split into words.
    ///
    /// # Errors
    /// As [`Unit::commands_before`].
    pub fn commands(&self, environment: &BTreeMap<String, String>) -> Result<Vec<Exec>> {
        self.start.iter().map(|line| line.split(environment)).collect()
    }
}

fn add_line(lines: &mut Vec<Line>, value: &str) {
    if value.is_empty() {
        lines.clear();
        return;
    }
    // The other prefixes change privileges and how variables are treated; here all is root's.
    let text = value.trim_start_matches(['-', '+', '!', ':', '@']);
    let prefix = &value[..value.len() - text.len()];
    lines.push(Line { text: text.to_owned(), may_fail: prefix.contains('-') });
}

impl Line {
    fn split(&self, environment: &BTreeMap<String, String>) -> Result<Exec> {
        let mut result = Vec::new();
        for word in words(&self.text)? {
            let value = |name: &str| environment.get(name).map(String::as_str).unwrap_or_default();
            // A variable that is a whole word, without braces, is split into words itself.
            match word.strip_prefix('$').filter(|name| is_name(name)) {
                Some(name) => result.extend(value(name).split_whitespace().map(str::to_owned)),
                None => result.push(substituted(&word, &value)),
            }
        }
        if result.is_empty() {
            bail!("an empty command line: {}", self.text);
        }
        Ok(Exec { words: result, may_fail: self.may_fail })
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `${NAME}` and `$NAME` become values, `$$` a dollar sign and `%%` a percent sign.
fn substituted<'a>(word: &str, value: &impl Fn(&str) -> &'a str) -> String {
    let word = word.replace("%%", "%");
    let (mut result, mut rest) = (String::new(), word.as_str());
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let length = after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}')).filter(|(name, _)| is_name(name));
        rest = if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            after
        } else if let Some((name, after)) = braced {
            result.push_str(value(name));
            after
        } else if length > 0 {
            result.push_str(value(&after[..length]));
            &after[length..]
        } else {
            result.push('$');
            after
        };
    }
    result + rest
}

/// The settings of the section `[Service]`, in their order.
fn service_settings(text: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut settings = Vec::new();
    for line in logical_lines(text) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if section == "Service"
            && let Some((key, value)) = line.split_once('=')
        {
            settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    settings
}

/// Lines with their continuations, without comments and empty ones. A comment does not end a continued line.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut continued = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(start) = line.strip_suffix('\\') {
            continued.push_str(start);
            continued.push(' ');
            continue;
        }
        let whole = std::mem::take(&mut continued) + line;
        if !whole.trim().is_empty() {
            lines.push(whole.trim().to_owned());
        }
    }
    if !continued.trim().is_empty() {
        lines.push(continued.trim().to_owned());
    }
    lines
}

/// Words as systemd splits them: quotes anywhere, and a backslash before a character means that character.
fn words(text: &str) -> Result<Vec<String>> {
    let mut result = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => {
                let next = characters.next().context("a backslash at the end")?;
                word.get_or_insert_default().push(match next {
                    'n' => '\n',
                    't' => '\t',
                    's' => ' ',
                    other => other,
                });
            }
            (_, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (_, None) if character.is_whitespace() => result.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if let Some(quote) = quote {
        bail!("a quote {quote} is not closed: {text}");
    }
    result.extend(word);
    Ok(result)
}

/// Seconds, or a number with one of the units that units use.
fn duration(text: &str) -> Result<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().context("no number")?;
    let seconds = match text[digits..].trim() {
        "" | "s" | "sec" => number,
        "ms" | "msec" => number / 1000.0,
        "min" | "m" => number * 60.0,
        other => bail!("unknown unit {other}"),
    };
    Ok(Duration::try_from_secs_f64(seconds)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = r#"
[Unit]
Description=A server
ExecStart=/not/this

[Service]
# What kubeadm's packages have
Environment="FLAGS=--a=1 --b=two" NAME=cp1
EnvironmentFile=-/etc/default/server
ExecStartPre=-/bin/mkdir -p "/var/lib/my server"
ExecStart=/usr/local/bin/server \
  --name=${NAME} \
  # a comment does not end it
  --literal=$$HOME \
  $FLAGS $MISSING --last='a b'
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
"#;

    fn words_of(text: &str, files: &[&str]) -> Vec<String> {
        let unit = Unit::parse(text).unwrap();
        let files: Vec<_> = files.iter().map(|file| (*file).to_owned()).collect();
        unit.commands(&unit.environment(&files).unwrap()).unwrap()[0].words.clone()
    }

    #[test]
    fn a_service_is_run_as_its_unit_says() {
        let expected = ["/usr/local/bin/server", "--name=cp1", "--literal=$HOME", "--a=1", "--b=two", "--last=a b"];
        assert_eq!(words_of(UNIT, &[]), expected);
        let unit = Unit::parse(UNIT).unwrap();
        assert_eq!((unit.restart, unit.restart_after), (Restart::OnFailure, Duration::from_secs(5)));
        let before = unit.commands_before(&BTreeMap::new()).unwrap();
        assert_eq!(before[0].words, ["/bin/mkdir", "-p", "/var/lib/my server"]);
        assert!(before[0].may_fail && !unit.commands(&BTreeMap::new()).unwrap()[0].may_fail);
    }

    #[test]
    fn a_file_of_variables_wins_over_the_unit_and_may_be_missing_where_the_unit_says_so() {
        let unit = Unit::parse(UNIT).unwrap();
        let file = EnvironmentFile { path: "/etc/default/server".to_owned(), optional: true };
        assert_eq!(unit.environment_files(), [file]);
        let words = words_of(UNIT, &["# none\nFLAGS=\"--c=3 --d\"\nNAME=cp2\n"]);
        assert_eq!(words[1..5], ["--name=cp2", "--literal=$HOME", "--c=3", "--d"]);
    }

    #[test]
    fn an_appended_drop_in_replaces_the_command_after_emptying_it() {
        let drop_in = "[Service]\nExecStart=\nExecStart=/usr/bin/other --x\nEnvironment=\n";
        assert_eq!(words_of(&format!("{UNIT}\n{drop_in}"), &[]), ["/usr/bin/other", "--x"]);
    }

    #[test]
    fn a_second_command_is_refused_unless_the_unit_is_a_oneshot() {
        let text = "[Service]\nExecStart=/bin/a\nExecStart=/bin/b\n";
        assert!(Unit::parse(text).unwrap_err().to_string().contains("Type=oneshot"));
        let unit = Unit::parse(&format!("{text}Type=oneshot\n")).unwrap();
        assert_eq!(unit.commands(&BTreeMap::new()).unwrap().len(), 2);
    }

    #[test]
    fn a_unit_that_wants_another_user_is_refused() {
        let error = Unit::parse("[Service]\nUser=etcd\nExecStart=/bin/a\n").unwrap_err();
        assert_eq!(format!("{error:#}"), "User=etcd: the lab runs units as root only");
    }

    #[test]
    fn a_unit_without_a_command_is_refused() {
        assert!(Unit::parse("[Service]\nType=simple\n").unwrap_err().to_string().contains("no ExecStart="));
    }

    #[test]
    fn an_open_quote_is_refused() {
        let unit = Unit::parse("[Service]\nExecStart=/bin/a \"b\n").unwrap();
        assert!(unit.commands(&BTreeMap::new()).unwrap_err().to_string().contains("not closed"));
    }

    #[test]
    fn folders_that_systemd_would_make_are_told() {
        let unit = Unit::parse("[Service]\nRuntimeDirectory=a b\nStateDirectory=c\nExecStart=/bin/a\n").unwrap();
        assert_eq!(unit.folders, ["/run/a", "/run/b", "/var/lib/c"]);
    }

    #[test]
    fn pauses_may_have_a_unit_of_time() {
        assert_eq!(duration("5").unwrap(), Duration::from_secs(5));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert!(duration("soon").is_err());
    }
}
