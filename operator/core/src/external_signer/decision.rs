//! What is next for a certificate that somebody else signs.

use super::Refusal;

/// How it stands with one certificate.
#[derive(Debug)]
pub struct Circumstances {
    /// Whether another certificate is wanted than the one that is there.
    pub is_wanted: bool,
    /// Whether the one that is there can be used meanwhile.
    pub serves: bool,
    /// Whether an answer may be used at this time, although the one that is there serves.
    pub may_change: bool,
    /// The request that was published; nothing if there is none.
    pub pending: Option<Pending>,
}

/// A request that was published.
#[derive(Debug)]
pub struct Pending {
    /// Whether it asks for what is wanted.
    pub fits: bool,
    /// Whether the certificate that is there is the answer to it.
    pub is_used: bool,
    /// The certificate, or what is wrong with it; nothing while nobody has answered.
    pub answer: Option<Result<String, Refusal>>,
}

/// What is next.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: what is there serves.
    Nothing,
    /// A key is made and a request published, in place of one that asks for something else.
    Ask,
    /// The signer has not answered.
    Wait,
    /// The signer has answered with something that was not asked for.
    Refuse(Refusal),
    /// The answer is good, and is used once that may be.
    Later,
    /// The answer is used.
    Use(String),
    /// The request is not needed any more.
    Withdraw,
}

/// Says what is next. A request that was published is brought to its end even if nothing would be asked for any more: its
/// signer may be at work, and a maintenance window may have closed.
#[must_use]
pub fn decide(circumstances: Circumstances) -> Decision {
    let Circumstances { is_wanted, serves, may_change, pending } = circumstances;
    match pending {
        None if is_wanted => Decision::Ask,
        None => Decision::Nothing,
        // What is wanted has changed since, or the answer that is used has come to its own renewal.
        Some(pending) if !pending.fits || pending.is_used => {
            if is_wanted {
                Decision::Ask
            } else {
                Decision::Withdraw
            }
        }
        Some(pending) => match pending.answer {
            None => Decision::Wait,
            Some(Err(refusal)) => Decision::Refuse(refusal),
            Some(Ok(_)) if serves && !may_change => Decision::Later,
            Some(Ok(certificate)) => Decision::Use(certificate),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(is_wanted: bool, serves: bool, pending: impl Into<Option<Pending>>) -> Decision {
        decide(Circumstances { is_wanted, serves, may_change: true, pending: pending.into() })
    }

    fn pending(answer: Option<Result<String, Refusal>>) -> Pending {
        Pending { fits: true, is_used: false, answer }
    }

    #[test]
    fn what_is_wanted_is_asked_for_once_and_used_when_it_is_answered() {
        assert_eq!(decided(false, true, None), Decision::Nothing);
        assert_eq!(decided(true, false, None), Decision::Ask);
        assert_eq!(decided(true, false, pending(None)), Decision::Wait);
        let refused = || Some(Err(Refusal::Unreadable));
        assert_eq!(decided(true, true, pending(refused())), Decision::Refuse(Refusal::Unreadable));
        assert_eq!(decided(true, false, pending(Some(Ok("pem".to_owned())))), Decision::Use("pem".to_owned()));
        let used = Some(Pending { fits: true, is_used: true, answer: Some(Ok("pem".to_owned())) });
        assert_eq!(decided(false, true, used), Decision::Withdraw);
    }

    #[test]
    fn a_request_for_something_else_is_replaced_or_withdrawn() {
        let other = || Some(Pending { fits: false, is_used: false, answer: Some(Ok("pem".to_owned())) });
        assert_eq!(decided(true, true, other()), Decision::Ask);
        assert_eq!(decided(false, true, other()), Decision::Withdraw);
    }

    #[test]
    fn a_request_that_was_published_is_brought_to_its_end_though_nothing_would_be_asked_for_any_more() {
        assert_eq!(decided(false, true, pending(None)), Decision::Wait);
        assert_eq!(decided(false, true, pending(Some(Ok("pem".to_owned())))), Decision::Use("pem".to_owned()));
    }

    #[test]
    fn an_answer_waits_for_its_time_only_while_there_is_something_to_use_meanwhile() {
        let early = |serves| {
            let pending = Some(pending(Some(Ok("pem".to_owned()))));
            decide(Circumstances { is_wanted: true, serves, may_change: false, pending })
        };
        assert_eq!(early(true), Decision::Later);
        assert_eq!(early(false), Decision::Use("pem".to_owned()));
    }

    #[test]
    fn a_certificate_whose_request_is_still_there_is_renewed_by_another_one() {
        let used = Some(Pending { fits: true, is_used: true, answer: Some(Ok("pem".to_owned())) });
        assert_eq!(decided(true, true, used), Decision::Ask);
    }
}
