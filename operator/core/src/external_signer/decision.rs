//! The next action for a certificate that an external signer issues.

use super::Rejection;

/// The observed state of one certificate and its request.
#[derive(Debug)]
pub struct SigningState {
    /// Whether the certificate is missing or needs replacement.
    pub needs_certificate: bool,
    /// Whether the current certificate can be used until the replacement is signed.
    pub has_usable_certificate: bool,
    /// Whether a usable certificate may be replaced now. A maintenance window may forbid that.
    pub may_change: bool,
    /// The published request, if any.
    pub pending: Option<PublishedRequest>,
}

/// A published certificate request.
#[derive(Debug)]
pub struct PublishedRequest {
    /// Whether the request matches the certificate template.
    pub fits: bool,
    /// Whether the current certificate was signed for this request.
    pub is_used: bool,
    /// The signed certificate, or its defect. `None` until the signer answers.
    pub answer: Option<Result<String, Rejection>>,
}

/// The next action for a certificate.
#[derive(Debug, PartialEq, Eq)]
pub enum SigningAction {
    /// Keep the current certificate.
    Nothing,
    /// Generate a key and publish a request. An outdated request is replaced.
    Request,
    /// Wait for the signer.
    Wait,
    /// Report that the signed certificate differs from the request.
    Reject(Rejection),
    /// Wait for the maintenance window with a valid signed certificate.
    Defer,
    /// Use the signed certificate.
    Use(String),
    /// Delete the request.
    Withdraw,
}

/// Returns the next action. A published request is completed even if the certificate no longer needs replacement: the
/// signer may be at work already, and a maintenance window may have closed meanwhile.
#[must_use]
pub fn next_action(state: SigningState) -> SigningAction {
    let SigningState { needs_certificate, has_usable_certificate, may_change, pending } = state;
    match pending {
        None if needs_certificate => SigningAction::Request,
        None => SigningAction::Nothing,
        // The template has changed since, or the certificate in use is due for renewal itself.
        Some(pending) if !pending.fits || pending.is_used => {
            if needs_certificate {
                SigningAction::Request
            } else {
                SigningAction::Withdraw
            }
        }
        Some(pending) => match pending.answer {
            None => SigningAction::Wait,
            Some(Err(refusal)) => SigningAction::Reject(refusal),
            Some(Ok(_)) if has_usable_certificate && !may_change => SigningAction::Defer,
            Some(Ok(certificate)) => SigningAction::Use(certificate),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(
        needs_certificate: bool,
        has_usable_certificate: bool,
        pending: impl Into<Option<PublishedRequest>>,
    ) -> SigningAction {
        next_action(SigningState {
            needs_certificate,
            has_usable_certificate,
            may_change: true,
            pending: pending.into(),
        })
    }

    fn pending(answer: Option<Result<String, Rejection>>) -> PublishedRequest {
        PublishedRequest { fits: true, is_used: false, answer }
    }

    #[test]
    fn publishes_one_request_and_uses_its_answer() {
        assert_eq!(decided(false, true, None), SigningAction::Nothing);
        assert_eq!(decided(true, false, None), SigningAction::Request);
        assert_eq!(decided(true, false, pending(None)), SigningAction::Wait);
        let refused = || Some(Err(Rejection::Unreadable));
        assert_eq!(decided(true, true, pending(refused())), SigningAction::Reject(Rejection::Unreadable));
        assert_eq!(decided(true, false, pending(Some(Ok("pem".to_owned())))), SigningAction::Use("pem".to_owned()));
        let used = Some(PublishedRequest { fits: true, is_used: true, answer: Some(Ok("pem".to_owned())) });
        assert_eq!(decided(false, true, used), SigningAction::Withdraw);
    }

    #[test]
    fn replaces_or_withdraws_outdated_request() {
        let other = || Some(PublishedRequest { fits: false, is_used: false, answer: Some(Ok("pem".to_owned())) });
        assert_eq!(decided(true, true, other()), SigningAction::Request);
        assert_eq!(decided(false, true, other()), SigningAction::Withdraw);
    }

    #[test]
    fn completes_published_request_that_is_no_longer_needed() {
        assert_eq!(decided(false, true, pending(None)), SigningAction::Wait);
        assert_eq!(decided(false, true, pending(Some(Ok("pem".to_owned())))), SigningAction::Use("pem".to_owned()));
    }

    #[test]
    fn defers_answer_only_while_current_certificate_is_usable() {
        let early = |has_usable_certificate| {
            let pending = Some(pending(Some(Ok("pem".to_owned()))));
            next_action(SigningState { needs_certificate: true, has_usable_certificate, may_change: false, pending })
        };
        assert_eq!(early(true), SigningAction::Defer);
        assert_eq!(early(false), SigningAction::Use("pem".to_owned()));
    }

    #[test]
    fn renews_with_new_request_while_answered_request_exists() {
        let used = Some(PublishedRequest { fits: true, is_used: true, answer: Some(Ok("pem".to_owned())) });
        assert_eq!(decided(true, true, used), SigningAction::Request);
    }
}
