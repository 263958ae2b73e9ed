use zbus::proxy;

/// A domain, as others on the bus see it.
#[proxy(interface = "org.vsnd.Bridge1.Domain", default_service = "org.vsnd.Bridge1")]
pub trait Domain {
    /// The domain's number.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> zbus::Result<u32>;

    /// Its name.
    #[zbus(property)]
    fn name(&self) -> zbus::Result<String>;

    /// Its UUID, or an empty text.
    #[zbus(property)]
    fn uuid(&self) -> zbus::Result<String>;

    /// The volume of all that it plays, 0.0 to 1.5, cubic.
    #[zbus(property)]
    fn volume(&self) -> zbus::Result<f64>;

    /// Sets the volume.
    #[zbus(property)]
    fn set_volume(&self, volume: f64) -> zbus::Result<()>;

    /// Whether all that it plays is silent.
    #[zbus(property)]
    fn muted(&self) -> zbus::Result<bool>;

    /// Mutes the domain, or lets it be heard.
    #[zbus(property)]
    fn set_muted(&self, muted: bool) -> zbus::Result<()>;

    /// Whether it may record: "allow", "ask" or "deny".
    #[zbus(property)]
    fn capture(&self) -> zbus::Result<String>;

    /// Sets whether it may record.
    #[zbus(property)]
    fn set_capture(&self, capture: &str) -> zbus::Result<()>;

    /// Whether it records sound now.
    #[zbus(property)]
    fn capture_active(&self) -> zbus::Result<bool>;

    /// It starts to record without permission.
    #[zbus(signal)]
    fn capture_requested(&self) -> zbus::Result<()>;
}
