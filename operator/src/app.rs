//! The one place that knows everything: what each command is made of.

use std::io::Write;
use std::process::ExitCode;

use k8s_openapi::jiff::Timestamp;

use crate::args::{Arguments, Command};
use crate::{render, yaml};

/// Runs a command to its end. Errors go to standard error, with exit status 1.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    // One crypto backend for TLS, before the first connection; that it is installed already is no error.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match arguments.command {
        Command::Crds => print(&crds()),
        Command::Render(arguments) => render::render(&arguments, arguments.now.unwrap_or_else(Timestamp::now))
            .map_err(|error| error.to_string())
            .and_then(|done| print(&(done.join("\n") + "\n"))),
        Command::Run(_) => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "keyplane: {message}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| format!("standard output: {error}"))
}

/// The definitions of the three kinds, as YAML documents.
#[must_use]
pub fn crds() -> String {
    let documents = keyplane_crds::definitions();
    documents.iter().map(|definition| format!("---\n{}", yaml::write_object(definition))).collect()
}
