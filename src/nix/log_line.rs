//! One object of `nix --log-format internal-json`.

use serde::Deserialize;
use serde_json::Value;

use super::internal_log::MAX_TRACED_BYTES;

#[derive(Deserialize)]
pub(super) struct Line {
    pub(super) action: String,
    pub(super) id: Option<u64>,
    pub(super) level: Option<u64>,
    #[serde(rename = "type")]
    pub(super) kind: Option<u64>,
    pub(super) text: Option<String>,
    pub(super) msg: Option<String>,
    pub(super) raw_msg: Option<String>,
    #[serde(rename = "line")]
    pub(super) row: Option<i64>,
    pub(super) column: Option<i64>,
    #[serde(default)]
    pub(super) fields: Vec<Value>,
    /// It was too long, and the message ends somewhere.
    #[serde(skip)]
    pub(super) is_cut: bool,
}

impl Line {
    /// `None`: the line of a newer Nix, of another shape, which says nothing to us.
    pub(super) fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok().or_else(|| salvage(json))
    }

    pub(super) fn number(&self, index: usize) -> u64 {
        self.fields.get(index).and_then(Value::as_u64).unwrap_or(0)
    }

    pub(super) fn string(&self, index: usize) -> &str {
        self.fields.get(index).and_then(Value::as_str).unwrap_or_default()
    }
}

/// The start of a message whose line was too long to be kept whole: an error must not get lost.
fn salvage(json: &str) -> Option<Line> {
    /// A surrogate pair, `\ud83d\ude00`.
    const LONGEST_ESCAPE: usize = 12;
    let (head, text) = json.split_once("\"msg\":\"")?;
    if !head.contains("\"action\":\"msg\"") {
        return None;
    }
    let end = text.len().min(MAX_TRACED_BYTES);
    let line: Option<Line> = (0..=LONGEST_ESCAPE).find_map(|back| {
        let text = &text[..text.floor_char_boundary(end.saturating_sub(back))];
        serde_json::from_str(&format!("{head}\"msg\":\"{text}\"}}")).ok()
    });
    line.map(|line| Line { is_cut: true, ..line })
}
