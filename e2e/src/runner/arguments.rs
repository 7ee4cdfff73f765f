//! The command line of libtest, as far as it means something for lab tests.

use clap::{ArgAction, Parser};

/// The lab tests. All of them need root and the lab's parts, so that all are ignored unless `--ignored` is given.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Default, Parser)]
#[command(name = "lab")]
pub(super) struct Arguments {
    /// Runs the tests whose names contain one of these.
    pub(super) filters: Vec<String>,
    /// Takes the filters for whole names.
    #[arg(long)]
    pub(super) exact: bool,
    /// Skips the tests whose names contain this.
    #[arg(long)]
    pub(super) skip: Vec<String>,
    /// Runs the tests, all of which are ignored otherwise.
    #[arg(long, alias = "include-ignored")]
    pub(super) ignored: bool,
    /// Lists the tests.
    #[arg(long)]
    pub(super) list: bool,
    /// How many tests run at once at most. Without it the weights alone decide.
    #[arg(long)]
    test_threads: Option<usize>,
    /// Shows the output of the tests as they run, one at a time.
    #[arg(long, alias = "nocapture")]
    pub(super) no_capture: bool,
    /// `terse` lists the names alone.
    #[arg(long)]
    pub(super) format: Option<String>,
    /// Accepted as libtest accepts it, and ignored.
    #[arg(short, long, action = ArgAction::Count)]
    quiet: u8,
    /// Accepted as libtest accepts it, and ignored.
    #[arg(long, action = ArgAction::Count)]
    show_output: u8,
    /// Accepted as libtest accepts it, and ignored.
    #[arg(long)]
    color: Option<String>,
    /// Accepted as libtest accepts it, and ignored.
    #[arg(short = 'Z')]
    unstable: Vec<String>,
}

impl Arguments {
    /// Whether the filters let this name through.
    pub(super) fn chooses(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skip.iter().any(fits)
    }

    /// How many tests run at once, whatever their weight.
    pub(super) fn most_at_once(&self) -> usize {
        match (self.test_threads, self.no_capture) {
            (Some(most), _) => most.max(1),
            // The output of several at once is of no use.
            (None, true) => 1,
            (None, false) => usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Arguments {
        Arguments::try_parse_from(["lab"].into_iter().chain(line.split_whitespace())).unwrap()
    }

    #[test]
    fn takes_the_command_lines_of_libtest() {
        let arguments = parsed("rotation csr:: --ignored --test-threads 2 --nocapture --color always -q");
        assert!(arguments.ignored && arguments.no_capture);
        assert_eq!(arguments.most_at_once(), 2);
        assert!(arguments.chooses("rotation::one") && arguments.chooses("csr::two") && !arguments.chooses("agent::a"));
        assert!(!parsed("").ignored && parsed("--include-ignored").ignored);
        assert!(parsed("--list --format terse").list);
    }

    #[test]
    fn an_exact_filter_is_a_whole_name() {
        let arguments = parsed("a::b --exact");
        assert!(arguments.chooses("a::b") && !arguments.chooses("a::bc"));
        let arguments = parsed("--skip a::b");
        assert!(!arguments.chooses("a::bc") && arguments.chooses("b::a"));
    }
}
