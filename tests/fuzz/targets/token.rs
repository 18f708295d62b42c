//! Any text as a join token, and as every name that a stranger may write.

#![no_main]

use baton_core::name::{Digest, HostName, PoolName, RolloutId, ServiceName, Version};
use baton_proto::identity::Identity;
use baton_proto::token::JoinToken;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_string().parse::<JoinToken>().ok(), Some(token), "read back as it was written");
    }
    drop((text.parse::<HostName>(), text.parse::<ServiceName>(), text.parse::<PoolName>(), text.parse::<RolloutId>()));
    drop((text.parse::<Version>(), text.parse::<Digest>(), text.parse::<Identity>()));
});
