//! lockc makes containers on edge nodes contain.
//!
//! The library is the daemon's; it is public for tests and fuzzing only.

pub mod adopt;
pub mod advise;
pub mod bpf;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod event;
pub mod explain;
pub mod policy;
pub mod runtime;
pub mod state;
pub mod watch;
