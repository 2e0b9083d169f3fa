//! lockc makes containers on edge nodes contain.

pub mod bpf;
pub mod config;
pub mod policy;
pub mod runtime;
pub mod watch;
