//! Test only: outputs recorded from real Nix versions, one `## case exit-code` section each.

pub(super) struct Case {
    pub(super) version: &'static str,
    pub(super) name: String,
    pub(super) code: i32,
    pub(super) stdout: Option<String>,
    pub(super) stderr: Vec<String>,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (version, text) in [
        ("2.8.0", include_str!("testdata/nix-2.8.0.log")),
        ("2.34.8", include_str!("testdata/nix-2.34.8.log")),
    ] {
        for line in text.lines() {
            if let Some((name, code)) = line.strip_prefix("## ").and_then(|l| l.split_once(' ')) {
                cases.push(Case {
                    version,
                    name: name.to_owned(),
                    code: code.parse().unwrap(),
                    stdout: None,
                    stderr: Vec::new(),
                });
                continue;
            }
            let case = cases.last_mut().unwrap();
            match line.strip_prefix("stdout ") {
                Some(out) => case.stdout = Some(out.to_owned()),
                None => case.stderr.push(line.to_owned()),
            }
        }
    }
    cases
}
