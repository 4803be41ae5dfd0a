//! The process's last log lines, for a bug report; kept in memory only.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Mutex;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::lock::lock;

/// Bytes of all lines.
const MOST: usize = 2 << 20;
/// Bytes of one.
const LINE: usize = 16 << 10;

static RECENT: Mutex<Recent> = Mutex::new(Recent { lines: VecDeque::new(), bytes: 0, gone: 0 });

struct Recent {
    lines: VecDeque<Box<str>>,
    bytes: usize,
    /// Lines that were here before them.
    gone: u64,
}

impl Recent {
    fn push(&mut self, line: &str) {
        let end = line.floor_char_boundary(LINE);
        let mut line = without_colours(&line[..end]);
        if !line.ends_with('\n') {
            line.push('\n');
        }
        self.bytes += line.len();
        self.lines.push_back(line.into());
        while self.bytes > MOST
            && let Some(first) = self.lines.pop_front()
        {
            self.bytes -= first.len();
            self.gone += 1;
        }
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(self.bytes);
        if self.gone > 0 {
            text = format!("({} lines before these are not kept)\n", self.gone);
        }
        text.extend(self.lines.iter().map(|line| &**line));
        text
    }
}

/// `ESC [ … m`, as a terminal gets them.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    text
}

/// The last lines at info and above, as they were written.
pub fn recent() -> String {
    lock(&RECENT).text()
}

/// Writes to standard error, and keeps what is at info or above.
pub(super) struct Tee;

pub(super) struct Line {
    is_kept: bool,
}

impl MakeWriter<'_> for Tee {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line { is_kept: true }
    }

    fn make_writer_for(&self, of: &Metadata<'_>) -> Line {
        Line { is_kept: *of.level() <= Level::INFO }
    }
}

impl Write for Line {
    /// A whole line at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.is_kept {
            lock(&RECENT).push(&String::from_utf8_lossy(line));
        }
        io::stderr().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Recent {
        Recent { lines: VecDeque::new(), bytes: 0, gone: 0 }
    }

    #[test]
    fn the_last_lines_are_kept_and_no_more_than_fit() {
        let mut recent = empty();
        for number in 0..100_000 {
            recent.push(&format!("{number:06} {}\n", "x".repeat(92)));
        }
        let text = recent.text();
        assert!(text.len() <= MOST + 100 && text.len() > MOST - 200, "{}", text.len());
        let lines: Vec<_> = text.lines().collect();
        let kept = lines.len() - 1;
        assert_eq!(lines[0], format!("({} lines before these are not kept)", 100_000 - kept));
        assert!(lines[1].starts_with(&format!("{:06} ", 100_000 - kept)), "{}", lines[1]);
        assert!(lines[kept].starts_with("099999 "));
    }

    #[test]
    fn a_line_is_bounded_ends_and_has_no_colours() {
        let mut recent = empty();
        recent.push(&"é".repeat(LINE));
        assert_eq!(recent.bytes, LINE + 1);
        let mut recent = empty();
        recent.push("\u{1b}[2m12:00\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m it is\n");
        assert_eq!(recent.text(), "12:00  WARN it is\n");
    }
}
