//! Containers that run already: which processes belong to which of them.
//!
//! [`Snapshot`] and [`Running`] look, [`attribute`] decides. What the daemon does with it is in `daemon::adopt`.

mod attribute;
mod running;
mod snapshot;

pub use self::{
    attribute::{Assignment, Formers, Place, attribute},
    running::{Running, places, real_paths, running, words},
    snapshot::{Process, Role, Snapshot},
};
