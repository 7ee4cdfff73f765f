//! The reason why a target cluster is not available.

use keyplane_client::causes;
use keyplane_crds::reasons;

use super::SessionSpec;

/// The reason and message of the condition of an unavailable target cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unavailable {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Unavailable {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Converts the error of a request.
    pub(super) fn from_error(spec: &SessionSpec, error: &kube::Error) -> Self {
        let endpoint = &spec.cluster.endpoint;
        match error {
            kube::Error::Api(status) if status.code == 401 => Self::new(
                reasons::UNAUTHORIZED,
                format!(
                    "the API server at {endpoint} rejects a client certificate of the cluster CA: check that the API \
                     server uses the ca.crt of this ClusterSpec, and that its clock is correct"
                ),
            ),
            kube::Error::Api(status) => Self::new(
                reasons::REQUEST_REFUSED,
                format!("the API server at {endpoint} answered: {}", status.message),
            ),
            other => Self::new(
                reasons::UNREACHABLE,
                format!("the API server at {endpoint} does not answer: {}", causes(other)),
            ),
        }
    }
}
