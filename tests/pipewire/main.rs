//! Nodes of the bridge on a real PipeWire with WirePlumber, without hardware.

mod capture;
mod desktop;
mod guest;
mod playback;
