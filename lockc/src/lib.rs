//! lockc makes containers on edge nodes contain.

pub mod bpf;
