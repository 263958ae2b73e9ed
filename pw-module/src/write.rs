//! Where in a run a WRITE ends: the guest tells its offset in the ring and no more.

use crate::units::Frames;

/// The end position of a WRITE of `length` frames at ring offset `offset`, given the end `written` so far and the
/// position `known` to the guest.
pub(crate) fn resolve_write(
    buffer: Frames,
    written: Frames,
    known: Frames,
    offset: Frames,
    length: Frames,
) -> Frames {
    let ring = buffer.0;
    let ahead = (offset.0 % ring + ring - written.0 % ring) % ring;
    let fill = written.0.saturating_sub(known.0);
    let back = ring - ahead;
    // An end beyond one buffer after the known position can't be meant, so the write rewinds.
    let rewinds = fill + ahead + length.0 > ring && back <= written.0;
    if rewinds { Frames(written.0 - back + length.0) } else { Frames(written.0 + ahead + length.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any mix of appends, rewinds, skips and cycles that a guest may make: the end that is found is the guest's own.
        #[test]
        fn writes_resolve_to_what_the_guest_meant(
            buffer in 4u64..64,
            steps in proptest::collection::vec((0u8..3, 0u64..64, 1u64..64, 0u64..64), 1..200),
        ) {
            let (mut known, mut appl, mut written) = (0u64, 1u64, 1u64);
            for (kind, amount, length, cycle) in steps {
                // A guest in an underrun stops; it never writes behind the position it knows.
                appl = appl.max(known);
                let room = known + buffer - appl;
                match kind {
                    1 => appl -= amount.min(appl - known),
                    2 => appl += amount.min(room.saturating_sub(1)),
                    _ => (),
                }
                let length = length.min(known + buffer - appl);
                if length > 0 {
                    let [ring, end, told] = [buffer, written, known].map(Frames);
                    let resolved = resolve_write(ring, end, told, Frames(appl % buffer), Frames(length));
                    appl += length;
                    prop_assert_eq!(resolved.0, appl);
                    written = written.max(appl);
                }
                known += cycle.min(written - known);
            }
        }
    }
}
