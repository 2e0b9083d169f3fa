//! lockc makes containers on edge nodes contain.
pub mod runtime;
