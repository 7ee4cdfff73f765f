//! The flags of a component, merged by kubeadm's rules.

use keyplane_crds::Argument;

/// The default flags of a component.
#[derive(Debug, Default)]
pub(super) struct Arguments(Vec<(&'static str, String)>);

impl Arguments {
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// Returns the command line: the program, the default flags in alphabetical order without those that the user
    /// overrides, then the user's flags in their order (kubeadm's `ArgumentsToCommand`).
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

/// Returns the effective value of a flag: the last one, if the flag is repeated.
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
    fn user_flags_override_defaults_and_keep_their_order() {
        let command = Arguments::default()
            .with("b", "1")
            .with("a", "2")
            .with("c", "3")
            .command("x", &[extra("z", "9"), extra("b", "8"), extra("b", "7")]);
        assert_eq!(command, ["x", "--a=2", "--c=3", "--z=9", "--b=8", "--b=7"]);
    }
}
