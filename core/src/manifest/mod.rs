//! `baton.toml`: text in, types out, with errors that name the place and the remedy.
