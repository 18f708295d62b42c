//! Makes old mistakes part of what is built here, from the same files.

fn main() {
    println!("cargo::rustc-cfg=mutant");
    println!("cargo::rerun-if-changed=../build.rs");
}
