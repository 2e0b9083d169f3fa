//! One decision function per hook.

pub mod exec;
pub mod file;
pub mod foreign;
pub mod kernel_log;
pub mod mount;
pub mod task;
