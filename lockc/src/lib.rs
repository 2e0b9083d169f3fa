//! lockc makes containers on edge nodes contain.

pub mod config;
pub mod policy;
pub mod runtime;
