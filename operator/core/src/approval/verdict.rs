//! What the rules answer, and what comes of it.

use keyplane_crds::reasons;

/// What becomes of a request. In the order of gravity: the gravest answer of all rules decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It is approved.
    Approve,
    /// It is left pending, because what is missing may still come: it is judged again when a fact changes.
    Wait,
    /// It is denied, because it can't become right. This is final: the kubelet has to ask anew.
    Deny,
    /// It is left alone, because it is not ours to judge, or because the policy says so.
    Ignore,
}

impl Verdict {
    /// The verdict as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Wait => "wait",
            Self::Deny => "deny",
            Self::Ignore => "ignore",
        }
    }

    /// The verdict as `explain` writes it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Approve => "Approve",
            Self::Wait => "Wait",
            Self::Deny => "Deny",
            Self::Ignore => "Ignore",
        }
    }
}

/// The answer of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The rule is kept.
    Pass,
    /// The rule could not be asked: another one objects to what it would look at.
    NotEvaluated,
    /// The rule objects.
    Objection {
        /// What the rule wants: anything but `Approve`.
        verdict: Verdict,
        /// Why, as one `CamelCase` word of a fixed set.
        reason: &'static str,
        /// Why, for a person.
        message: String,
    },
}

impl Answer {
    /// What the answer alone would make of the request. What could not be judged is never approved.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Pass => Verdict::Approve,
            Self::NotEvaluated => Verdict::Wait,
            Self::Objection { verdict, .. } => *verdict,
        }
    }

    /// The answer's reason: one `CamelCase` word.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Pass => reasons::PASSED,
            Self::NotEvaluated => reasons::NOT_EVALUATED,
            Self::Objection { reason, .. } => reason,
        }
    }

    /// What the answer says to a person.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Pass => "",
            Self::NotEvaluated => "could not be asked: see the other rules",
            Self::Objection { message, .. } => message,
        }
    }

    /// An objection that ends the request.
    pub(super) fn deny(reason: &'static str, message: String) -> Self {
        Self::Objection { verdict: Verdict::Deny, reason, message }
    }

    /// An objection that may go away.
    pub(super) fn wait(reason: &'static str, message: String) -> Self {
        Self::Objection { verdict: Verdict::Wait, reason, message }
    }

    /// The request is none of our business.
    pub(super) fn ignore(reason: &'static str, message: String) -> Self {
        Self::Objection { verdict: Verdict::Ignore, reason, message }
    }
}

/// The answer of one rule, with the rule's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleAnswer {
    /// The rule.
    pub rule: &'static str,
    /// Its answer.
    pub answer: Answer,
}

/// In place of a rule's name: all of them had to pass.
const EVERY_RULE: &str = "all";

/// What becomes of a request, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What becomes of the request.
    pub verdict: Verdict,
    /// The rule that decided, or `all` for an approval.
    pub rule: &'static str,
    /// One `CamelCase` word of a fixed set: the reason of the condition and of the Event, and the metric label.
    pub reason: &'static str,
    /// The reason for a person.
    pub message: String,
    /// Whether a rule wanted to deny the request. With the verdict `Ignore` this tells a violation that the policy lets
    /// be, which deserves an Event, from a request that is none of our business, which doesn't.
    pub violation: bool,
    /// Whether the policy wants the verdict to be told and not written.
    pub dry_run: bool,
    /// The answers of all rules that were asked, in their order.
    pub answers: Vec<RuleAnswer>,
}

impl Judgement {
    /// The message, and what it comes from: the rule and the policy.
    #[must_use]
    pub fn sentence(&self, policy: &str) -> String {
        let would = if self.dry_run { "dry run: " } else { "" };
        match self.deciding_rule() {
            Some(rule) => format!("{would}{} (rule {rule}, {policy})", self.message),
            None => format!("{would}{} ({policy})", self.message),
        }
    }

    /// The one rule that decided; nothing for an approval, for which all did.
    #[must_use]
    pub fn deciding_rule(&self) -> Option<&'static str> {
        (self.rule != EVERY_RULE).then_some(self.rule)
    }

    /// The gravest answer decides, the first one among equals.
    pub(super) fn sum_up(username: &str, answers: Vec<RuleAnswer>) -> Self {
        let verdict = answers.iter().map(|answer| answer.answer.verdict()).max().unwrap_or(Verdict::Wait);
        // An objection explains more than a rule that could not be asked.
        let decisive = answers
            .iter()
            .filter(|answer| answer.answer.verdict() == verdict)
            .min_by_key(|answer| answer.answer == Answer::NotEvaluated);
        let (rule, reason, message) = match decisive {
            Some(RuleAnswer { rule, answer: Answer::Objection { reason, message, .. } }) => {
                (*rule, *reason, message.clone())
            }
            Some(RuleAnswer { answer: Answer::Pass, .. }) => (
                EVERY_RULE,
                reasons::ALL_RULES_PASSED,
                format!("all {} rules passed for {}", answers.len(), shown(username)),
            ),
            Some(RuleAnswer { rule, answer: Answer::NotEvaluated }) => {
                (*rule, reasons::NOT_EVALUATED, format!("the rule {rule} could not be asked"))
            }
            None => ("none", reasons::NOT_EVALUATED, "no rule was asked".to_owned()),
        };
        Self { verdict, rule, reason, message, violation: verdict == Verdict::Deny, dry_run: false, answers }
    }
}

/// Text that others wrote, for a message: control characters escaped, and cut, as an Event has room for 1 kB only.
pub(super) fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 100;
    let cut: String = text.chars().take(MAX_CHARS).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{cut:?}{more}")
}
