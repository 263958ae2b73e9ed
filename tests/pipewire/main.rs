//! Nodes of the bridge on a real PipeWire with WirePlumber, without hardware.

mod guest;
mod playback;
