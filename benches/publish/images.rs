//! A closure as an OCI image: what a node's containerd takes to unpack and mount it, in a containerd of the benchmark's
//! own. Its layer is not compressed, and is in the content store already: nothing is pulled.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::alternatives::{Measured, run};
use crate::closures::Closure;
use crate::lab::wait_for;
use crate::report::Row;

/// On the store's disk.
const DIR: &str = "/nix/containerd";
const NAME: &str = "localhost/closure:bench";

pub fn unpacked(closure: &Closure) -> Measured {
    let dir = Path::new(DIR);
    fs::create_dir(dir).unwrap();
    let image = dir.join("image.tar");
    write(&image, closure);
    let containerd = Containerd::start(dir);
    containerd.asked(&["images", "import", "--no-unpack", image.to_str().unwrap()]);
    fs::remove_file(&image).unwrap();
    rustix::fs::syncfs(File::open("/nix").unwrap()).unwrap();
    let at = dir.join("mounted");
    fs::create_dir(&at).unwrap();
    let began = Instant::now();
    containerd.asked(&["images", "mount", NAME, at.to_str().unwrap()]);
    let mounted = Instant::now();
    let last = closure.paths.last().unwrap().strip_prefix("/").unwrap();
    assert!(fs::symlink_metadata(at.join(last)).is_ok(), "{} is not there", last.display());
    let looked = Instant::now();
    containerd.asked(&["images", "unmount", "--rm", at.to_str().unwrap()]);
    containerd.asked(&["images", "remove", "--sync", NAME]);
    let removed = looked.elapsed();
    drop(containerd);
    fs::remove_dir_all(dir).unwrap();
    rustix::fs::syncfs(File::open("/nix").unwrap()).unwrap();
    let row = |name| Row::other(name, closure.size.name, "OCI image");
    vec![(row("publish-cold"), mounted - began), (row("unpublish-cold"), removed)]
}

struct Containerd {
    process: Child,
    socket: String,
}

impl Containerd {
    fn start(dir: &Path) -> Self {
        let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let (config, socket) = (at("config.toml"), at("socket"));
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("ttrpc")
        );
        fs::write(&config, text).unwrap();
        let process = Command::new("containerd")
            .args(["--config", &config, "--log-level", "fatal"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { process, socket };
        wait_for("containerd to listen", || UnixStream::connect(&this.socket).is_ok());
        this
    }

    fn asked(&self, args: &[&str]) {
        run("ctr", &[&["--address", &self.socket], args].concat());
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An archive in the image layout of OCI, with one layer.
fn write(archive: &Path, closure: &Closure) {
    let layer = archive.with_extension("layer");
    let mut hashed =
        Hashed { into: BufWriter::new(File::create(&layer).unwrap()), hash: Sha256::new() };
    let mut tar = tar::Builder::new(&mut hashed);
    tar.follow_symlinks(false);
    tar.mode(tar::HeaderMode::Complete);
    for path in &closure.paths {
        let name = path.strip_prefix("/").unwrap();
        if fs::symlink_metadata(path).unwrap().is_dir() {
            tar.append_dir_all(name, path).unwrap();
        } else {
            tar.append_path_with_name(path, name).unwrap();
        }
    }
    tar.into_inner().unwrap().flush().unwrap();
    let digest = digest_of(hashed.hash);

    let mut tar = tar::Builder::new(File::create(archive).unwrap());
    let bytes = fs::metadata(&layer).unwrap().len();
    tar.append_path_with_name(&layer, blob(&digest)).unwrap();
    fs::remove_file(&layer).unwrap();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest] },
    });
    let layer = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": bytes });
    let config = added(&mut tar, "application/vnd.oci.image.config.v1+json", &config);
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer] });
    let mut manifest = added(&mut tar, manifest_type, &manifest);
    manifest["annotations"] = json!({ "io.containerd.image.name": NAME });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    append(&mut tar, "index.json", &index);
    append(&mut tar, "oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }));
    tar.finish().unwrap();
}

fn digest_of(hash: Sha256) -> String {
    format!("sha256:{}", hex::encode(hash.finalize()))
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// Adds it by its digest; its descriptor.
fn added(tar: &mut tar::Builder<File>, media_type: &str, value: &Value) -> Value {
    let text = value.to_string();
    let digest = digest_of(Sha256::new_with_prefix(&text));
    append(tar, &blob(&digest), value);
    json!({ "mediaType": media_type, "digest": digest, "size": text.len() })
}

fn append(tar: &mut tar::Builder<File>, name: &str, value: &Value) {
    let text = value.to_string();
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, text.as_bytes()).unwrap();
}

struct Hashed<W> {
    into: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.into.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}
