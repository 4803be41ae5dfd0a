//! Compiles the protocols without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let protocols =
        ["proto/csi.proto", "proto/nixcsi/admin.proto", "proto/pluginregistration.proto"];
    let files = protox::compile(protocols, ["proto"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
