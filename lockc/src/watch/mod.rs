//! What the daemon watches: runtimes that are executed, and the files they are.

pub mod config;
pub mod gate;
pub mod group;
mod own;
pub mod runtimes;
