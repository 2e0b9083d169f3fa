//! The kernel side as the daemon sees it: what it needs, how it is loaded, what
//! is kept in its maps.

mod adopt;
mod attach;
pub mod backend;
pub mod btf;
pub mod calls;
pub mod events;
pub mod fdinfo;
pub mod host;
pub mod labels;
pub mod layout;
pub mod load;
mod locks;
pub mod maps;
mod modify_return;
pub mod pin;
pub mod pinned;
mod policies;
pub mod predecessor;
mod recursion;
pub mod self_test;
pub mod shape;
pub mod unload;

pub use load::{Kernel, LoadError};
