//! `keyplane csr explain`: the verdict on one request, with the result of each rule. The command uses the rules of
//! `keyplane run`, and writes nothing.

mod documents;
mod live;
mod place;
mod report;

use std::io;

use k8s_openapi::jiff::Timestamp;

use crate::args::{ExplainArguments, Output, read_text};
use documents::Documents;
use keyplane_client::resolve;
use keyplane_core::approval::{Evaluation, Resolved, SigningRequest, Verdict};
use place::Place;

/// The reason why a request can't be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// A file can't be read.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: String,
        /// The error.
        source: io::Error,
    },
    /// A document is invalid.
    #[error("{file}, document {number}: {problem}")]
    Document {
        /// The file.
        file: String,
        /// Index of the document, from 1.
        number: usize,
        /// The problem, with the field.
        problem: String,
    },
    /// The file is not YAML.
    #[error("{file} is not YAML: {problem}")]
    Yaml {
        /// The file.
        file: String,
        /// The parser's error.
        problem: String,
    },
    /// The files don't have exactly one request.
    #[error("the files have {0} CertificateSigningRequests: pass exactly one")]
    Requests(usize),
    /// The ClusterSpec or the policy that applies can't be determined.
    #[error("{0}")]
    Place(String),
    /// The API server returned an error.
    #[error("{what}: {problem}")]
    Cluster {
        /// The requested object.
        what: String,
        /// The error.
        problem: String,
    },
}

/// Output of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The printed text.
    pub text: String,
    /// The exit status.
    pub status: u8,
}

/// Evaluates the request.
///
/// # Errors
/// The request or the related objects can't be read.
pub async fn explain(arguments: &ExplainArguments, now: Timestamp) -> Result<Explained, ExplainError> {
    let mut settled = None;
    let (mut request, place, default_now) = if let Some(name) = &arguments.name {
        let live::Found { mut request, place, condition } = live::read(arguments, name).await?;
        let default_now = if request.settled { request.created.unwrap_or(now) } else { now };
        // For a denied request, the user wants to know the reason. So the verdict is ignored, and the rules are
        // evaluated.
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
        // A request that was not created yet has no age.
        request.created = request.created.or(Some(now));
    }
    let judgement = judge(&request, &place, now).await;
    let text = match arguments.output {
        Output::Text => report::text(&request, &place.name, settled.as_deref(), &judgement),
        Output::Json => report::json(&request, &place.name, settled.as_deref(), &judgement),
    };
    Ok(Explained { text, status: status(judgement.verdict) })
}

async fn judge(request: &SigningRequest, place: &Place, now: Timestamp) -> Evaluation {
    let judgement = place.approver.evaluate(request, &Resolved::default(), now);
    let names = place.approver.unresolved(request, &judgement);
    if names.is_empty() {
        return judgement;
    }
    place.approver.evaluate(request, &resolve::all(&names).await, now)
}

/// The exit status of a verdict, for scripts.
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
