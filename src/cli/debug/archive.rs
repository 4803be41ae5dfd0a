//! The archive in memory: parts are bounded, and so is it.

use std::fmt::Write as _;
use std::io;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::NAME;
use crate::bundle::Part;

/// Each file, how many bytes it has, and what it lacks.
pub(super) fn manifest(parts: &[Part], said: &str, now: jiff::Timestamp) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("nix-csi {version}, bundle of {now}\n{said}\n\nfile\tbytes\tsaid\n");
    for Part { name, content, lacks } in parts {
        // One line each.
        let lacks = lacks.replace(['\n', '\t'], " ");
        let _ = match content {
            Some(content) if lacks.is_empty() => writeln!(text, "{name}\t{}\twhole", content.len()),
            Some(content) => writeln!(text, "{name}\t{}\tnot whole: {lacks}", content.len()),
            None => writeln!(text, "{name}\t-\tmissing: {lacks}"),
        };
    }
    text
}

pub(super) fn archive(parts: &[Part], manifest: &str, seconds: u64) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let contents = parts.iter().filter_map(|part| Some((&*part.name, part.content.as_deref()?)));
    for (name, content) in [("MANIFEST", manifest.as_bytes())].into_iter().chain(contents) {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(seconds);
        archive.append_data(&mut header, format!("{NAME}/{name}"), content)?;
    }
    archive.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_has_a_line_for_each_part() {
        let part = |name: &str, content: Option<&str>, lacks: &str| Part {
            name: name.to_owned(),
            content: content.map(|text| text.as_bytes().to_owned()),
            lacks: lacks.to_owned(),
        };
        let parts = [
            part("a", Some("text"), ""),
            part("b", Some("te"), "its first 2 bytes of 4"),
            part("c", None, "no\nanswer"),
        ];
        let text = manifest(&parts, "nobody answers", jiff::Timestamp::UNIX_EPOCH);
        let wanted = "bundle of 1970-01-01T00:00:00Z\nnobody answers\n\nfile\tbytes\tsaid\n\
            a\t4\twhole\nb\t2\tnot whole: its first 2 bytes of 4\nc\t-\tmissing: no answer\n";
        assert!(text.ends_with(wanted), "{text}");
    }
}
