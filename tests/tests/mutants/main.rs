//! Every old mistake of others that this suite is there to catch, made again on purpose: one that survives fails.
//!
//! The mistakes stand in core, in the simulation and in the model as `mutant!("...")`, and are made in the crates of `tests/mutants`
//! alone, which are the same files with `--cfg mutant`.

#![allow(clippy::print_stdout)]

mod in_model;
mod in_simulation;

/// One mistake is made at a time, in the whole process.
#[test]
fn a_mistake_that_survives_is_a_failure() {
    let survivors = [in_simulation::survivors(), in_model::survivors()].concat();
    assert!(survivors.is_empty(), "not caught any more: {survivors:#?}");
}
