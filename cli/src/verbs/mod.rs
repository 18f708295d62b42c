//! What can be asked, one file each.

pub mod audit;
pub mod balancers;
pub mod certificates;
pub mod completions;
pub mod config;
pub mod deploy;
pub mod doctor;
pub mod ending;
pub mod explain;
pub mod history;
pub mod hosts;
pub mod init;
pub mod login;
pub mod plan;
pub mod releases;
pub mod rollback;
pub mod status;
pub mod steer;
pub mod target;
pub mod token;
pub mod version;
pub mod watch;
pub mod why;
