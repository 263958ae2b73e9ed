use zbus::proxy;

/// A stream, as others on the bus see it.
#[proxy(interface = "org.vsnd.Bridge1.Stream", default_service = "org.vsnd.Bridge1")]
pub trait Stream {
    /// "playback" or "capture".
    #[zbus(property)]
    fn direction(&self) -> zbus::Result<String>;

    /// "closed", "stopped", "running" or "paused".
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// The sample format as sndif names it; empty while closed.
    #[zbus(property)]
    fn format(&self) -> zbus::Result<String>;

    /// Frames a second; 0 while closed.
    #[zbus(property)]
    fn rate(&self) -> zbus::Result<u32>;

    /// Channels; 0 while closed.
    #[zbus(property)]
    fn channels(&self) -> zbus::Result<u32>;

    /// Frames of a period; 0 while closed.
    #[zbus(property)]
    fn period_frames(&self) -> zbus::Result<u32>;

    /// Frames of the guest's buffer; 0 while closed.
    #[zbus(property)]
    fn buffer_frames(&self) -> zbus::Result<u32>;

    /// The node's volume of each channel as a mixer shows it, cubic.
    #[zbus(property)]
    fn volume(&self) -> zbus::Result<Vec<f64>>;

    /// Whether a mixer shows the node muted.
    #[zbus(property)]
    fn muted(&self) -> zbus::Result<bool>;

    /// The name of its node on the sound server.
    #[zbus(property)]
    fn node_name(&self) -> zbus::Result<String>;

    /// The server's number for its node; 4294967295 while there is none.
    #[zbus(property)]
    fn node_id(&self) -> zbus::Result<u32>;

    /// The sink or source that it is routed to; empty leaves it to the session manager.
    #[zbus(property)]
    fn target(&self) -> zbus::Result<String>;

    /// Routes it.
    #[zbus(property)]
    fn set_target(&self, target: &str) -> zbus::Result<()>;

    /// From the guest's buffer to the ear, or from the microphone into the guest's buffer, in microseconds.
    #[zbus(property)]
    fn latency_usec(&self) -> zbus::Result<u64>;

    /// How often the guest had nothing to play, or the server came too late.
    #[zbus(property)]
    fn underruns(&self) -> zbus::Result<u64>;

    /// How often the guest did not fetch what was recorded.
    #[zbus(property)]
    fn overruns(&self) -> zbus::Result<u64>;

    /// Frames that the guest was told to be played or captured.
    #[zbus(property(emits_changed_signal = "false"))]
    fn position(&self) -> zbus::Result<u64>;

    /// By how much the told position is ahead of the sound, in microseconds.
    #[zbus(property(emits_changed_signal = "false"))]
    fn position_error_usec(&self) -> zbus::Result<i64>;

    /// The peak of each channel in the last moments, linear.
    #[zbus(property(emits_changed_signal = "false"))]
    fn levels(&self) -> zbus::Result<Vec<f64>>;
}
