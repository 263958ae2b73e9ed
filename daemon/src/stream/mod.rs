//! One PCM stream: states, position clock, event writer.
