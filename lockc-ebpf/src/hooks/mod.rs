//! One decision function per hook.

pub(crate) mod exec;
pub(crate) mod file;
pub(crate) mod foreign;
pub(crate) mod kernel_log;
pub(crate) mod mount;
pub(crate) mod task;
