//! The whole daemon on the simulated hypervisor, in front of it the model of Linux's driver in both its variants.

mod bus;
mod machine;
mod sound;
