//! What volumes ask for.

use std::fs;

use nix_csi::model::System;

use crate::lab::{Cache, Lab};

const CLOSURES: &str = include_str!("../data/closures.nix");

/// Closures that many ask for; they share all paths but two.
pub(crate) const SHARED: u64 = 4;
pub(crate) const FLAKES: u64 = 3;

/// Numbers that look like chance, the same in each run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % n
    }

    /// One of so many parts of a whole.
    pub(crate) fn part(&mut self, n: u32) -> f64 {
        let thrown = u32::try_from(self.below(n.into())).unwrap();
        f64::from(1 + thrown) / f64::from(n)
    }
}

/// Three paths that nothing else shares.
pub(crate) fn own(seed: &str) -> String {
    format!("({CLOSURES}) {{ seed = \"{seed}\"; paths = 3; files = 8; bytes = 60000; }}")
}

pub(crate) fn shared(n: u64) -> String {
    format!(
        "({CLOSURES}) {{ seed = \"shared\"; variant = \"v{n}\"; paths = 5; tail = 1; files = 12; \
         bytes = 90000; }}"
    )
}

/// One path, soon built.
pub(crate) fn small(name: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         args = [ \"-c\" \"echo {name} > $out\" ]; }}"
    )
}

/// Puts the flakes on the web server.
pub(crate) fn push_flakes(lab: &Lab, web: &Cache) {
    let system = System::current();
    for n in 0..FLAKES {
        let derivation = small(&format!("flake-{n}"));
        let derivation = derivation.replace("builtins.currentSystem", &format!("\"{system}\""));
        let flake = format!("{{ outputs = _: {{ packages.{system}.x = {derivation}; }}; }}");
        let name = format!("flake-{n}");
        fs::create_dir(lab.path(&name)).unwrap();
        fs::write(lab.path(&name).join("flake.nix"), flake).unwrap();
        let tarball = web.file(&format!("{name}.tar"));
        let parent = lab.dir.path().to_str().unwrap();
        lab.ok("tar", &["-C", parent, "-cf", tarball.to_str().unwrap(), &name]);
    }
}

pub(crate) fn flake(web: &Cache, n: u64) -> String {
    format!("{}/flake-{n}.tar#x", web.url())
}
