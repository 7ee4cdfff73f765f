//! Flags of a component, merged as kubeadm merges them.

use keyplane_crds::Argument;

/// The flags that a component has before the user's.
#[derive(Debug, Default)]
pub(super) struct Arguments(Vec<(&'static str, String)>);

impl Arguments {
    /// Adds a flag.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// The command line: the program, the flags in alphabetical order save those that the user gives, then the user's
    /// in their own order (kubeadm's `ArgumentsToCommand`).
    pub(super) fn command(mut self, program: &str, extra: &[Argument]) -> Vec<String> {
        self.0.sort();
        let mut command = vec![program.to_owned()];
        command.extend(
            self.0
                .iter()
                .filter(|(name, _)| value_of(extra, name).is_none())
                .map(|(name, value)| format!("--{name}={value}")),
        );
        command.extend(extra.iter().map(|argument| format!("--{}={}", argument.name, argument.value)));
        command
    }
}

/// The value that a component takes for a flag that is given several times: the last.
pub(super) fn value_of<'a>(extra: &'a [Argument], name: &str) -> Option<&'a str> {
    extra.iter().rev().find(|argument| argument.name == name).map(|argument| argument.value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extra(name: &str, value: &str) -> Argument {
        Argument { name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn the_users_flags_replace_and_come_last_in_their_own_order() {
        let command = Arguments::default()
            .with("b", "1")
            .with("a", "2")
            .with("c", "3")
            .command("x", &[extra("z", "9"), extra("b", "8"), extra("b", "7")]);
        assert_eq!(command, ["x", "--a=2", "--c=3", "--z=9", "--b=8", "--b=7"]);
    }
}
