//! The binary `keyplane`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    keyplane::app::main(keyplane::args::Arguments::parse())
}
