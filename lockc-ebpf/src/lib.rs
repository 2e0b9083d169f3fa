//! Empty on purpose: a library target lets `lockc` name this crate as a build
//! dependency, so that cargo rebuilds the daemon when the BPF side changes.
#![no_std]
