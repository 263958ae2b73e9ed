//! One buffer of a stream, from dequeue to queue.
#![allow(unsafe_code)] // PipeWire's buffers are raw memory, and the safe wrapper can't say how much is queued

use std::ptr::NonNull;

use pipewire::spa::sys::spa_data;
use pipewire::stream::Stream;
use pipewire::sys::pw_buffer;

/// A buffer taken from a stream; given back when dropped. Real-time safe.
pub(super) struct Buffer<'s> {
    stream: &'s Stream,
    raw: NonNull<pw_buffer>,
}

impl<'s> Buffer<'s> {
    /// The next buffer to fill (playback) or to read (capture), if there is one.
    pub(super) fn dequeue(stream: &'s Stream) -> Option<Self> {
        // SAFETY: the stream is alive; a null result is handled, any other is given back by `drop`.
        let raw = unsafe { stream.dequeue_raw_buffer() };
        NonNull::new(raw).map(|raw| Self { stream, raw })
    }

    /// The first plane, the only one of an interleaved format.
    fn data(&self) -> Option<NonNull<spa_data>> {
        // SAFETY: between dequeue and queue the buffer is ours, and PipeWire keeps the structures valid.
        let buffer = NonNull::new(unsafe { self.raw.as_ref() }.buffer)?;
        // SAFETY: as above.
        let buffer = unsafe { buffer.as_ref() };
        if buffer.n_datas == 0 { None } else { NonNull::new(buffer.datas) }
    }

    /// Hands the octets for the frames that the cycle wants to `fill`, whole frames of `frame` octets, and marks them
    /// as filled. An unusable buffer goes back as it came.
    pub(super) fn fill(self, frame: u32, fill: impl FnOnce(&mut [u8])) {
        let Some(mut data) = self.data() else { return };
        // SAFETY: the structure is valid and ours alone until the buffer is queued.
        let data = unsafe { data.as_mut() };
        let (Some(memory), Some(mut chunk)) =
            (NonNull::new(data.data.cast::<u8>()), NonNull::new(data.chunk))
        else {
            return;
        };
        // SAFETY: as above; the chunk belongs to the same buffer.
        let chunk = unsafe { chunk.as_mut() };
        let room = u64::from(data.maxsize / frame.max(1));
        // SAFETY: as above. Zero means that the server has no wish.
        let requested = unsafe { self.raw.as_ref() }.requested;
        let frames = if requested == 0 { room } else { requested.min(room) };
        // Both factors come from 32-bit numbers whose product is at most `maxsize`.
        let len = frames as u32 * frame;
        // SAFETY: `maxsize` octets from `memory` are mapped for writing, and nobody else touches them while the buffer
        // is dequeued.
        fill(unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), len as usize) });
        chunk.offset = 0;
        chunk.stride = i32::try_from(frame).unwrap_or(0);
        chunk.size = len;
        let mut raw = self.raw;
        // SAFETY: the buffer is ours. The sum of these sizes is what `pw_time.queued` tells.
        unsafe { raw.as_mut() }.size = frames;
    }

    /// Hands the octets of the recorded frames to `take`, whole frames of `frame` octets.
    pub(super) fn take(self, frame: u32, take: impl FnOnce(&[u8])) {
        let Some(data) = self.data() else { return };
        // SAFETY: the structure is valid and not written until the buffer is queued.
        let data = unsafe { data.as_ref() };
        let (Some(memory), Some(chunk)) = (NonNull::new(data.data.cast::<u8>()), NonNull::new(data.chunk))
        else {
            return;
        };
        // SAFETY: as above; the chunk belongs to the same buffer.
        let chunk = unsafe { chunk.as_ref() };
        let offset = chunk.offset.min(data.maxsize);
        let size = chunk.size.min(data.maxsize - offset);
        let len = size - size % frame.max(1);
        let start = memory.as_ptr().wrapping_add(offset as usize);
        // SAFETY: offset and length lie inside the `maxsize` octets mapped at `memory`.
        take(unsafe { std::slice::from_raw_parts(start, len as usize) });
        let mut raw = self.raw;
        // SAFETY: the buffer is ours.
        unsafe { raw.as_mut() }.size = u64::from(len / frame.max(1));
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // SAFETY: the buffer came from this stream's dequeue and is given back once.
        unsafe { self.stream.queue_raw_buffer(self.raw.as_ptr()) };
    }
}
