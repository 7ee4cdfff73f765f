//! The binary `keyplane`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match keyplane::args::Arguments::try_parse() {
        Ok(arguments) => keyplane::app::main(arguments),
        Err(error) => {
            let _ = error.print();
            // clap's own status for a wrong command line is 2, which says Deny in `keyplane csr explain`.
            if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}
