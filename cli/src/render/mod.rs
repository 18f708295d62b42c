//! What people see: pages made of plain spans, escaped and coloured only where they are written.

pub mod agents;
pub mod audit;
pub mod authority;
pub mod balancers;
pub mod certificates;
pub mod changes;
pub mod frame;
pub mod history;
pub mod hooks;
pub mod hosts;
pub mod live;
pub mod narrow;
pub mod page;
pub mod plan;
pub mod reboot;
pub mod releases;
mod sources;
pub mod status;
pub mod table;
pub mod units;
pub mod why;

#[cfg(test)]
pub(crate) mod example;
