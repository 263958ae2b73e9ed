//! A hypervisor in one process and a model of the Linux frontend, for demo, tests and benchmarks.

pub mod signal;
