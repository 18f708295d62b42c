//! How the agent is linked: it runs on every host, and what it has resident is almost only pages of its own program.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |of: &str| std::env::var(format!("CARGO_CFG_TARGET_{of}")).unwrap_or_default();
    // Where the toolchain's own linker is the default. Functions that are the same are in the program once.
    if target("ARCH") == "x86_64" && target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
