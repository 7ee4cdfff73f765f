//! `keyplane csr explain`: what becomes of one request, and what each rule says of it. The same rules as in `keyplane run`
//! judge it; nothing is written.

mod documents;
mod live;
mod place;
mod report;

use std::io;

use k8s_openapi::jiff::Timestamp;

use crate::args::{ExplainArguments, Output, read_text};
use documents::Documents;
use keyplane_client::resolve;
use keyplane_core::approval::{Judgement, Resolved, SigningRequest, Verdict};
use place::Place;

/// Why a request can't be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// A file could not be read.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A document makes no sense.
    #[error("{file}, document {number}: {problem}")]
    Document {
        /// The file.
        file: String,
        /// Which document, from 1.
        number: usize,
        /// What is wrong with it, with the field.
        problem: String,
    },
    /// The file is no YAML.
    #[error("{file} is no YAML: {problem}")]
    Yaml {
        /// The file.
        file: String,
        /// Where and why.
        problem: String,
    },
    /// There is not exactly one request.
    #[error("the files have {0} CertificateSigningRequests: give exactly one")]
    Requests(usize),
    /// It can't be told by what the request is to be judged.
    #[error("{0}")]
    Place(String),
    /// The cluster could not be asked.
    #[error("{what}: {problem}")]
    Cluster {
        /// What was asked for.
        what: String,
        /// What came of it.
        problem: String,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// As it is printed.
    pub text: String,
    /// The exit status.
    pub status: u8,
}

/// Judges the request.
///
/// # Errors
/// If the request or what is known of its cluster can't be read.
pub async fn explain(arguments: &ExplainArguments, now: Timestamp) -> Result<Explained, ExplainError> {
    let mut settled = None;
    let (mut request, place, default_now) = if let Some(name) = &arguments.name {
        let live::Found { mut request, place, condition } = live::read(arguments, name).await?;
        let default_now = if request.settled { request.created.unwrap_or(now) } else { now };
        // Who asks about a request that is denied wants to know why, and not that it is denied.
        if request.settled {
            settled = Some(condition);
            request.settled = false;
        }
        (request, place, default_now)
    } else {
        let mut documents = Documents::default();
        for filename in &arguments.filenames {
            let file = filename.display().to_string();
            let text = read_text(filename).map_err(|source| ExplainError::File { file: file.clone(), source })?;
            documents.read(&file, &text)?;
        }
        let request = documents.request()?;
        let place = place::choose(&documents, &request)?;
        let created = request.created.unwrap_or(now);
        (request, place, created)
    };
    let now = arguments.now.unwrap_or(default_now);
    if arguments.name.is_none() {
        // A request that is not in a cluster yet has no age.
        request.created = request.created.or(Some(now));
    }
    let judgement = judge(&request, &place, now).await;
    let text = match arguments.output {
        Output::Text => report::text(&request, &place.name, settled.as_deref(), &judgement),
        Output::Json => report::json(&request, &place.name, settled.as_deref(), &judgement),
    };
    Ok(Explained { text, status: status(judgement.verdict) })
}

async fn judge(request: &SigningRequest, place: &Place, now: Timestamp) -> Judgement {
    let judgement = place.approver.judge(request, &Resolved::default(), now);
    let names = place.approver.unresolved(request, &judgement);
    if names.is_empty() {
        return judgement;
    }
    place.approver.judge(request, &resolve::all(&names).await, now)
}

/// The exit status that says the verdict to a script.
const fn status(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Approve => 0,
        Verdict::Deny => 2,
        Verdict::Wait => 3,
        Verdict::Ignore => 4,
    }
}

#[cfg(test)]
mod tests;
