//! The answers of the rules, and the verdict on a CSR.

use keyplane_crds::reasons;

/// The verdict on a CSR, ordered by severity. The most severe answer of all rules decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The CSR is approved.
    Approve,
    /// The CSR stays pending, because missing information may still arrive. It is evaluated again when its input
    /// changes.
    Wait,
    /// The CSR is denied, because it can never become valid. A denial is final, and the kubelet has to create a new
    /// CSR.
    Deny,
    /// The CSR stays unchanged, because it is outside the scope of Keyplane, or because of the policy.
    Ignore,
}

impl Verdict {
    /// Returns the verdict as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Wait => "wait",
            Self::Deny => "deny",
            Self::Ignore => "ignore",
        }
    }

    /// Returns the verdict for the output of `csr explain`.
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
    /// The rule is satisfied.
    Pass,
    /// The rule can't be evaluated, because another rule objects to its input.
    NotEvaluated,
    /// The rule objects.
    Objection {
        /// The verdict of the rule, never `Approve`.
        verdict: Verdict,
        /// The reason, one `CamelCase` word of a fixed set.
        reason: &'static str,
        /// The message for users.
        message: String,
    },
}

impl Answer {
    /// Returns the verdict of this answer alone. A rule that can't be evaluated prevents an approval.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Pass => Verdict::Approve,
            Self::NotEvaluated => Verdict::Wait,
            Self::Objection { verdict, .. } => *verdict,
        }
    }

    /// Returns the reason, one `CamelCase` word.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Pass => reasons::PASSED,
            Self::NotEvaluated => reasons::NOT_EVALUATED,
            Self::Objection { reason, .. } => reason,
        }
    }

    /// Returns the message for users.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Pass => "",
            Self::NotEvaluated => "not evaluated: see the other rules",
            Self::Objection { message, .. } => message,
        }
    }

    /// Returns a final objection.
    pub(super) fn deny(reason: &'static str, message: String) -> Self {
        Self::Objection { verdict: Verdict::Deny, reason, message }
    }

    /// Returns an objection that may go away.
    pub(super) fn wait(reason: &'static str, message: String) -> Self {
        Self::Objection { verdict: Verdict::Wait, reason, message }
    }

    /// Returns the answer for a CSR outside the scope of Keyplane.
    pub(super) fn ignore(reason: &'static str, message: String) -> Self {
        Self::Objection { verdict: Verdict::Ignore, reason, message }
    }
}

/// The answer of one rule, with the name of the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleAnswer {
    /// The name of the rule.
    pub rule: &'static str,
    /// The answer of the rule.
    pub answer: Answer,
}

/// The rule name of an approval, for which all rules must pass.
const EVERY_RULE: &str = "all";

/// The verdict on a CSR with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The verdict.
    pub verdict: Verdict,
    /// The rule that decided, or `all` for an approval.
    pub rule: &'static str,
    /// One `CamelCase` word of a fixed set: the reason of the condition and of the Event, and the metric label.
    pub reason: &'static str,
    /// The message for users.
    pub message: String,
    /// Whether a rule denied the CSR. With the verdict `Ignore`, this distinguishes a violation that the policy ignores
    /// from a CSR outside the scope of Keyplane. Only the former causes an Event.
    pub violation: bool,
    /// Whether the policy wants the verdict to be reported but not applied.
    pub dry_run: bool,
    /// The answers of all evaluated rules, in order.
    pub answers: Vec<RuleAnswer>,
}

impl Evaluation {
    /// Returns the message with the rule and the policy.
    #[must_use]
    pub fn sentence(&self, policy: &str) -> String {
        let would = if self.dry_run { "dry run: " } else { "" };
        match self.deciding_rule() {
            Some(rule) => format!("{would}{} (rule {rule}, {policy})", self.message),
            None => format!("{would}{} ({policy})", self.message),
        }
    }

    /// Returns the rule that decided, or `None` for an approval.
    #[must_use]
    pub fn deciding_rule(&self) -> Option<&'static str> {
        (self.rule != EVERY_RULE).then_some(self.rule)
    }

    /// Summarizes the answers. The most severe answer decides; among equals the first one.
    pub(super) fn from_answers(username: &str, answers: Vec<RuleAnswer>) -> Self {
        let verdict = answers.iter().map(|answer| answer.answer.verdict()).max().unwrap_or(Verdict::Wait);
        // An objection explains more than a rule that can't be evaluated.
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
                (*rule, reasons::NOT_EVALUATED, format!("rule {rule} can't be evaluated"))
            }
            None => ("none", reasons::NOT_EVALUATED, "no rule was evaluated".to_owned()),
        };
        Self { verdict, rule, reason, message, violation: verdict == Verdict::Deny, dry_run: false, answers }
    }
}

/// Formats text of others for a message: control characters are escaped, and long text is cut, because an Event message
/// has at most 1 kB.
pub(super) fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 100;
    let cut: String = text.chars().take(MAX_CHARS).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{cut:?}{more}")
}
