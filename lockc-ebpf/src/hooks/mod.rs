//! One decision function per hook.

pub(crate) mod adopt;
pub(crate) mod change;
pub(crate) mod code;
pub(crate) mod device;
pub(crate) mod exec;
pub(crate) mod file;
pub(crate) mod foreign;
pub(crate) mod host_path;
pub(crate) mod identity;
pub(crate) mod interface;
pub(crate) mod kernel_call;
pub(crate) mod kernel_log;
pub(crate) mod known;
pub(crate) mod mount;
pub(crate) mod namespace;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod task;
pub(crate) mod terminal;
pub(crate) mod unix;
pub(crate) mod uring;
