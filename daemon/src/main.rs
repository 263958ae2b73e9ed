//! The command vsnd-bridge.

fn main() {}
