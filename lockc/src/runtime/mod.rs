//! What an OCI runtime was asked to do: its command line, read from the frozen
//! task, and the bundle it points to.

pub mod argv;
pub mod bundle;
pub mod caller;
pub mod cmdline;
