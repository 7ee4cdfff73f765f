//! Formats the explanation as text or JSON.

use serde_json::json;

use keyplane_core::approval::{Evaluation, SigningRequest};

/// Formats one JSON object.
pub(super) fn json(request: &SigningRequest, place: &str, settled: Option<&str>, judgement: &Evaluation) -> String {
    let rules: Vec<_> = judgement
        .answers
        .iter()
        .map(|answer| {
            json!({
                "name": answer.rule,
                "verdict": answer.answer.verdict().title(),
                "reason": answer.answer.reason(),
                "message": answer.answer.message(),
            })
        })
        .collect();
    let mut answer = json!({
        "verdict": judgement.verdict.title(),
        "reason": judgement.reason,
        "message": judgement.message,
        "rule": judgement.rule,
        "dryRun": judgement.dry_run,
        "request": request.name,
        "judgedBy": place,
        "rules": rules,
    });
    if let Some(settled) = settled {
        answer["settled"] = json!(settled);
    }
    format!("{answer:#}\n")
}

/// Formats a few lines and a table.
pub(super) fn text(request: &SigningRequest, place: &str, settled: Option<&str>, judgement: &Evaluation) -> String {
    let name = if request.name.is_empty() { "(without a name)" } else { &request.name };
    let dry_run = if judgement.dry_run { " (dry run: nothing is written)" } else { "" };
    let settled = settled.map(|settled| format!("{:<11}{}\n", "Settled:", plain(settled))).unwrap_or_default();
    let rule = judgement.deciding_rule().map(|rule| format!(" (rule {rule})")).unwrap_or_default();
    let head = [
        ["Request:", name],
        ["Requester:", &plain(&request.username)],
        ["Signer:", &plain(&request.signer_name)],
        ["Judged by:", place],
        ["Verdict:", &format!("{}{dry_run}", judgement.verdict.title())],
        ["Reason:", &format!("{}: {}{rule}", judgement.reason, judgement.message)],
    ]
    .map(|[label, value]| format!("{label:<11}{value}\n"))
    .concat();
    let mut rows = vec![["RULE", "VERDICT", "REASON", "MESSAGE"]];
    for answer in &judgement.answers {
        let (verdict, reason) = (answer.answer.verdict().title(), answer.answer.reason());
        rows.push([answer.rule, verdict, reason, answer.answer.message()]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    let table = rows.iter().map(|[rule, verdict, reason, message]| {
        let line = format!(
            "{rule:<w0$}  {verdict:<w1$}  {reason:<w2$}  {message}",
            w0 = widths[0],
            w1 = widths[1],
            w2 = widths[2]
        );
        format!("{}\n", line.trim_end())
    });
    format!("{head}{settled}\n{}", table.collect::<String>())
}

/// Escapes untrusted text for a terminal.
fn plain(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).collect()
}
