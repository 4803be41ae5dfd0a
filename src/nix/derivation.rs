//! What a derivation's text says that it makes and needs. Pure.

use crate::model::StorePath;

/// The derivations and sources among its inputs. `None`: it is no derivation of the usual form
/// (nix, `Derivation::unparse`).
pub(super) fn inputs(text: &str) -> Option<Vec<StorePath>> {
    let (mut rest, _) = outputs(text)?;
    rest.skip(",")?;
    let derivations = rest.list(|text| {
        text.skip("(")?;
        let path = text.string()?;
        text.skip(",")?;
        text.list(Text::string)?;
        text.skip(")")?;
        Some(path)
    })?;
    rest.skip(",")?;
    let sources = rest.list(Text::string)?;
    rest.skip(",")?;
    let all = derivations.into_iter().chain(sources);
    all.map(|path| StorePath::parse(&path).ok()).collect()
}

/// Whether its hash tells its one output, so that its build may fetch.
pub(super) fn has_fixed_output(text: &str) -> bool {
    // Name, path, kind of hash, hash: the last is empty where nothing is fixed.
    outputs(text).is_some_and(|(_, outputs)| {
        matches!(&outputs[..], [[_, _, kind, hash]] if !kind.is_empty() && !hash.is_empty())
    })
}

/// What follows the outputs, and the fields of each.
fn outputs(text: &str) -> Option<(Text<'_>, Vec<[String; 4]>)> {
    let mut rest = Text(text.strip_prefix("Derive(")?);
    let outputs = rest.list(|text| text.tuple(Text::string)?.try_into().ok())?;
    Some((rest, outputs))
}

struct Text<'a>(&'a str);

impl Text<'_> {
    fn skip(&mut self, what: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(what)?;
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        self.skip("\"")?;
        let mut string = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(string);
                }
                '\\' => string.push(match chars.next()?.1 {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                }),
                other => string.push(other),
            }
        }
        None
    }

    fn list<T>(&mut self, item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.between("[", "]", item)
    }

    fn tuple<T>(&mut self, item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.between("(", ")", item)
    }

    fn between<T>(
        &mut self,
        open: &str,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.skip(open)?;
        let mut all = Vec::new();
        if self.skip(close).is_some() {
            return Some(all);
        }
        loop {
            all.push(item(self)?);
            if self.skip(close).is_some() {
                return Some(all);
            }
            self.skip(",")?;
        }
    }
}

/// What Nix itself would take for an input is one.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let text = crate::fuzz::text(data);
    let Some(found) = inputs(&text) else { return };
    for path in &found {
        crate::fuzz::component(path.base_name());
    }
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    // To both, a slash at the end says nothing.
    let mut read = as_nix_reads(&text).expect("what is read here");
    for path in &mut read {
        path.truncate(path.trim_end_matches('/').len());
    }
    assert_eq!(read, shown);
    // What comes after them says nothing of them, and without them it is none.
    let (rest, outputs) = outputs(&text).expect("inputs come after outputs");
    assert_eq!(inputs(&format!("{text}\"],[(\"")).as_ref(), Some(&found));
    assert_eq!(inputs(&text[..text.len() - rest.0.len()]), None);
    let fields = outputs.iter().flatten().map(String::len).sum::<usize>();
    assert!(fields <= text.len());
}

/// As `parseDerivation` of Nix's src/libstore/derivations.cc, which is less strict than we are.
#[cfg(any(test, fuzzing))]
fn as_nix_reads(text: &str) -> Option<Vec<String>> {
    struct Reader<'a>(&'a [u8]);
    impl Reader<'_> {
        fn expect(&mut self, what: &[u8]) -> Option<()> {
            self.0 = self.0.strip_prefix(what)?;
            Some(())
        }

        fn string(&mut self) -> Option<String> {
            self.expect(b"\"")?;
            let mut read = Vec::new();
            loop {
                let (mut byte, rest) = (*self.0.first()?, &self.0[1..]);
                self.0 = rest;
                if byte == b'"' {
                    return String::from_utf8(read).ok();
                }
                if byte == b'\\' {
                    byte = match *self.0.first()? {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        other => other,
                    };
                    self.0 = &self.0[1..];
                }
                read.push(byte);
            }
        }

        fn is_end_of_list(&mut self) -> bool {
            self.expect(b",").is_none() && self.expect(b"]").is_some()
        }
    }
    let mut reader = Reader(text.as_bytes());
    reader.expect(b"Derive([")?;
    while !reader.is_end_of_list() {
        reader.expect(b"(")?;
        reader.string()?;
        for _ in 0..3 {
            reader.expect(b",")?;
            reader.string()?;
        }
        reader.expect(b")")?;
    }
    let mut found = Vec::new();
    reader.expect(b",[")?;
    while !reader.is_end_of_list() {
        reader.expect(b"(")?;
        found.push(reader.string()?);
        reader.expect(b",[")?;
        while !reader.is_end_of_list() {
            reader.string()?;
        }
        reader.expect(b")")?;
    }
    reader.expect(b",[")?;
    while !reader.is_end_of_list() {
        found.push(reader.string()?);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz";

    #[test]
    fn inputs_are_derivations_and_sources() {
        let text = format!(
            r#"Derive([("dev","{PATH}-d","",""),("out","{PATH}-o","sha256","ab")],[("{PATH}-a.drv",["dev","out"]),("{PATH}-b.drv",["out"])],["{PATH}-s","{PATH}-t\"\\"],"x86_64-linux","/bin/sh",["-c","Derive([\"{PATH}-n\"],["],[("x","{PATH}-e")])"#
        );
        // A name has neither quotes nor backslashes.
        assert_eq!(inputs(&text), None);
        let text = text.replace(r#"\"\\"]"#, r#""]"#);
        let names: Vec<_> =
            inputs(&text).unwrap().iter().map(|path| path.name().to_owned()).collect();
        assert_eq!(names, ["a.drv", "b.drv", "s", "t"]);
        assert_eq!(inputs(r#"Derive([],[],[],"x","y",[],[])"#), Some(vec![]));
        for bad in [
            "",
            "Derive(",
            "Derive([],[],[",
            r#"Derive([],[],["x"],"#,
            r#"Derive([],[("/etc",[])],[],"#,
            r#"DrvWithVersion("xp-dyn-drv",[],[],[],"x","y",[],[])"#,
        ] {
            assert_eq!(inputs(bad), None, "{bad}");
        }
    }

    #[test]
    fn fixed_outputs_are_told_from_others() {
        for (outputs, fixed) in [
            (format!(r#"("out","{PATH}-x","sha256","00aa")"#), true),
            (format!(r#"("out","{PATH}-x","r:sha256","00aa")"#), true),
            (format!(r#"("out","{PATH}-x","","")"#), false),
            // Content-addressed, but not known in advance.
            (r#"("out","","r:sha256","")"#.to_owned(), false),
            (format!(r#"("dev","{PATH}-x","",""),("out","{PATH}-y","","")"#), false),
        ] {
            let text = format!("Derive([{outputs}],[],[],\"x\",\"/bin/sh\",[],[])");
            assert_eq!(has_fixed_output(&text), fixed, "{text}");
        }
        assert!(!has_fixed_output("{}"));
    }
}
