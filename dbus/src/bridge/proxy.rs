use zbus::proxy;

/// The bridge, as others on the bus see it.
#[proxy(
    interface = "org.vsnd.Bridge1",
    default_service = "org.vsnd.Bridge1",
    default_path = "/org/vsnd/Bridge1"
)]
pub trait Bridge {
    /// The bridge's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;

    /// The sound server's name and version, or "null".
    #[zbus(property)]
    fn server(&self) -> zbus::Result<String>;

    /// The sinks that playback streams can be routed to, in order.
    #[zbus(property)]
    fn sinks(&self) -> zbus::Result<Vec<String>>;

    /// The sources that capture streams can be routed to, in order.
    #[zbus(property)]
    fn sources(&self) -> zbus::Result<Vec<String>>;
}
