//! The wire: sndif version 2. Pure, no I/O, no unsafe.
