//! Rings on a real PulseAudio, and on PipeWire where it stands in for PulseAudio.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test from head to foot

mod capture;
mod desk;
mod desktop;
mod playback;
mod timing;
mod volume;
