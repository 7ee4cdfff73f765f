//! The guided look: plain kubectl commands with what they really answer.

use keyplane_e2e::{Installation, Kubectl, Lab, Machine};

use crate::screen::say;

/// A demo that is up.
pub(crate) struct Demo {
    pub(crate) lab: Lab,
    pub(crate) installation: Installation,
    pub(crate) machine: Machine,
    pub(crate) target: Kubectl,
}

/// Shows both clusters.
pub(crate) fn show(demo: &Demo) {
    let management = demo.installation.admin();
    say("\n== The management cluster: what was asked for, and what Keyplane answered");
    export(management);
    command(management, "get clusterspecs");
    command(management, "get secrets,configmaps -l keyplane.io/cluster=demo");
    let description = "describe clusterspec demo";
    say(&format!("\n$ kubectl {description}    (the conditions)"));
    match management.run(&words(description)) {
        Ok(text) => say(section(&text, "Conditions:").trim_end()),
        Err(error) => say(&format!("{error:#}")),
    }

    say("\n== The cluster that was made");
    export(&demo.target);
    for line in [
        "get nodes -o wide",
        "get pods -A",
        "get csr",
        "logs hello --tail=3",
        "exec hello -- sh -c 'echo hi from $(hostname)'",
    ] {
        command(&demo.target, line);
    }
}

/// Says what a person may do next.
pub(crate) fn how_to_go_on(demo: &Demo, detached: bool) {
    say("\n== Go on yourself, in another terminal");
    say(&format!("export PATH={}:$PATH    # this kubectl", demo.lab.parts().folder().display()));
    say(&format!("export KUBECONFIG={}    # the management cluster", demo.installation.admin().kubeconfig().display()));
    say(&format!("export KUBECONFIG={}    # the cluster that was made", demo.target.kubeconfig().display()));
    say(&format!("nsenter -t {} -a    # a shell on the machine {}", demo.machine.init_pid(), demo.machine.name()));
    say(&format!("tail -f {}    # what Keyplane says", demo.installation.operator.log().display()));
    say(if detached {
        "\nIt stays up: keyplane-lab demo-down ends it."
    } else {
        "\nCtrl-C ends the demo and removes it."
    });
}

fn export(kubectl: &Kubectl) {
    say(&format!("$ export KUBECONFIG={}", kubectl.kubeconfig().display()));
}

fn command(kubectl: &Kubectl, line: &str) {
    say(&format!("\n$ kubectl {line}"));
    // A command that fails is part of what is to be seen.
    match kubectl.run(&words(line)) {
        Ok(text) => say(text.trim_end()),
        Err(error) => say(&format!("{error:#}")),
    }
}

/// Splits a command line as a shell does, as far as the lines above need it: at blanks, but not in single quotes.
fn words(line: &str) -> Vec<&str> {
    let quoted = line.split('\'').enumerate();
    let pieces = quoted.flat_map(
        |(number, piece)| {
            if number % 2 == 1 { vec![piece] } else { piece.split_whitespace().collect() }
        },
    );
    pieces.collect()
}

/// The line of `text` that says `title` and those below it that are further indented.
fn section<'a>(text: &'a str, title: &str) -> &'a str {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let mut lines = text.split_inclusive('\n');
    let mut start = 0;
    let Some(first) = lines.find(|line| {
        let found = line.trim() == title;
        start += if found { 0 } else { line.len() };
        found
    }) else {
        return text;
    };
    let below: usize = lines.take_while(|line| indentation(line) > indentation(first)).map(str::len).sum();
    &text[start..start + first.len() + below]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_quotes_stay_together() {
        assert_eq!(words("exec hello -- sh -c 'echo hi'"), ["exec", "hello", "--", "sh", "-c", "echo hi"]);
    }

    #[test]
    fn a_section_ends_with_its_indentation() {
        let text = "Status:\n  Conditions:\n    Type:  Ready\n    Status: True\n  Nodes: 1\nEvents: none\n";
        assert_eq!(section(text, "Conditions:"), "  Conditions:\n    Type:  Ready\n    Status: True\n");
        assert_eq!(section("nothing of it", "Conditions:"), "nothing of it");
    }
}
