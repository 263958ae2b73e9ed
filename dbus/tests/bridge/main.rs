//! `org.vsnd.Bridge1` from both ends: peer to peer, and on a session bus of one's own.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod ask_capture;
mod bus;
mod fake;
mod introspection;
mod names;
mod objects;
mod peer;
mod vsndctl;
