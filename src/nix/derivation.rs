//! What a derivation's text says that it needs. Pure.

use crate::model::StorePath;

/// The derivations and sources among its inputs. `None`: it is no derivation of the usual form
/// (nix, `Derivation::unparse`).
pub(super) fn inputs(text: &str) -> Option<Vec<StorePath>> {
    let mut rest = Text(text.strip_prefix("Derive(")?);
    rest.list(|text| text.tuple(|text| text.string().map(drop)))?;
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
}
