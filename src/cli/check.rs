//! `nix-csi check`.

use std::collections::VecDeque;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use super::status::table;
use crate::config::{CheckArgs, Output};
use crate::k8s::{ClusterCheck, Row, Verdict};

/// Columns of one line of text, in the last column.
const WIDTH: usize = 90;

pub async fn check(args: CheckArgs) -> Result<(), Failure> {
    let check = ClusterCheck::open(args.kubeconfig.as_deref(), args.options()).await?;
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let rows = tokio::select! {
        rows = check.run() => Some(rows),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    let cleaned = check.clean().await;
    let Some(rows) = rows else {
        cleaned?;
        return Err("interrupted: the canaries are removed".into());
    };
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&as_json(&rows))?),
        Output::Table => print!("{}", as_table(&rows)),
    }
    verdict(&rows)
}

fn verdict(rows: &[Row]) -> Result<(), Failure> {
    match rows.iter().filter(|row| row.verdict == Verdict::Failed).count() {
        0 => Ok(()),
        1 => Err("1 check failed".into()),
        n => Err(format!("{n} checks failed").into()),
    }
}

fn as_table(rows: &[Row]) -> String {
    let mut shown = table(&["CHECK", "RESULT", "FOUND"]);
    for row in rows {
        let way = row.way_out.as_ref().map(|way| format!("\n-> {way}")).unwrap_or_default();
        let found = wrapped(&format!("{}{way}", row.found));
        shown.add_row([row.what.clone(), row.verdict.as_str().to_owned(), found]);
    }
    format!("{shown}\n")
}

/// By words; one that is longer than a line stays whole.
fn wrapped(text: &str) -> String {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut words: VecDeque<_> = paragraph.split(' ').collect();
        while let Some(word) = words.pop_front() {
            let mut line = word.to_owned();
            while let Some(next) =
                words.pop_front_if(|next| line.chars().count() + 1 + next.chars().count() <= WIDTH)
            {
                line.push(' ');
                line.push_str(next);
            }
            lines.push(line);
        }
    }
    lines.join("\n")
}

fn as_json(rows: &[Row]) -> Value {
    let checks = rows.iter().map(|row| {
        json!({
            "check": row.what,
            "result": row.verdict.as_str(),
            "found": row.found,
            "wayOut": row.way_out,
        })
    });
    json!({ "ok": verdict(rows).is_ok(), "checks": checks.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(what: &str, verdict: Verdict, found: &str, way_out: Option<&str>) -> Row {
        let (what, found) = (what.to_owned(), found.to_owned());
        Row { what, verdict, found, way_out: way_out.map(str::to_owned) }
    }

    #[test]
    fn a_failure_is_shown_with_reason_and_way_out_and_counts() {
        let fine = [
            row("a", Verdict::Ok, "good", None),
            row("b", Verdict::Skipped, "there is none", None),
        ];
        assert!(verdict(&fine).is_ok());
        assert_eq!(as_json(&fine)["ok"], true);
        let long = "word ".repeat(30);
        let bad = [&fine[..], &[row("c", Verdict::Failed, &long, Some("do it"))]].concat();
        assert_eq!(verdict(&bad).unwrap_err().0, "1 check failed");
        let shown = as_table(&bad);
        assert!(shown.lines().any(|line| line.contains("-> do it")), "{shown}");
        assert!(shown.lines().all(|line| line.len() < 120), "{shown}");
        let json = as_json(&bad);
        assert_eq!(json["ok"], false);
        assert_eq!(json["checks"][2]["wayOut"], "do it");
        assert_eq!(json["checks"][2]["result"], "failed");
    }
}
