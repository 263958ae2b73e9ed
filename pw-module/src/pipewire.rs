//! PipeWire (to come).
