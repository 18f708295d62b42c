//! The generated code is committed, and it is what the `.proto` files say.
//!
//! `BATON_REGENERATE=1 cargo test -p baton-proto --test freshness` writes it anew.

use std::path::{Path, PathBuf};

const FILES: [&str; 6] = ["fleet", "agent_link", "enrollment", "artifacts", "host_link", "control"];

fn generate(into: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<PathBuf> = FILES.iter().map(|file| root.join(format!("baton/v1/{file}.proto"))).collect();
    let descriptors = protox::compile(&files, [root])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .out_dir(into)
        .compile_fds(descriptors)?;
    Ok(into.join("baton.v1.rs"))
}

#[test]
fn generated_code_is_what_the_proto_files_say() -> Result<(), Box<dyn std::error::Error>> {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen/baton.v1.rs");
    let folder = tempfile::tempdir()?;
    let fresh = std::fs::read_to_string(generate(folder.path())?)?;
    if std::env::var_os("BATON_REGENERATE").is_some() {
        std::fs::write(&committed, &fresh)?;
    }
    assert!(
        std::fs::read_to_string(&committed)? == fresh,
        "src/gen is stale: BATON_REGENERATE=1 cargo test -p baton-proto --test freshness"
    );
    Ok(())
}
