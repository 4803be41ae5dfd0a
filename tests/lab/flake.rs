//! A flake, in a directory and on a web server.

use std::fs;
use std::path::PathBuf;

use nix_csi::model::System;

use super::{Cache, Lab};

impl Lab {
    /// Writes a flake whose `x` holds `text`; its directory.
    pub fn flake(&self, text: &str) -> PathBuf {
        let system = System::current();
        let flake = format!(
            r#"{{ outputs = _: {{ packages.{system}.x = derivation {{
          name = "x"; system = "{system}"; builder = "/bin/sh"; args = [ "-c" "echo {text} > $out" ];
        }}; }}; }}"#
        );
        let dir = self.path("flake");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("flake.nix"), flake).unwrap();
        dir
    }

    /// The same as `flake.tar` on the web server.
    pub fn push_flake(&self, web: &Cache, text: &str) {
        self.flake(text);
        let parent = self.dir.path().to_str().unwrap();
        let tarball = web.file("flake.tar");
        self.ok("tar", &["-C", parent, "-cf", tarball.to_str().unwrap(), "flake"]);
    }
}
