//! One guest card: bus states, configuration snapshot, its streams.

pub mod names;
