//! What Baton's programs say to each other: the `.proto` files, the code generated from them, conversions to `core`'s types,
//! and mutual TLS.

/// The generated messages, clients and servers.
#[allow(clippy::all, clippy::needless_pass_by_value, missing_debug_implementations, unreachable_pub, rustdoc::all)]
pub mod v1 {
    include!("gen/baton.v1.rs");
}
