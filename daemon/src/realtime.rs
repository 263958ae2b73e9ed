//! Real-time priority for a thread, by the means that the desktop has: the user's own limits, else rtkit.

use std::num::NonZeroU64;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{Pid, gettid, set_current_timer_slack};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tracing::debug;
use zbus::proxy::CacheProperties;

/// A bus that has not answered by now has nobody to grant anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// The priority is not granted.
#[derive(Debug, thiserror::Error)]
#[error("the user's limits (RLIMIT_RTPRIO) do not allow real-time priority {0}")]
pub struct NotAllowed(u8);

/// Gives the calling thread SCHED_FIFO at `priority`, from 1 to 99.
///
/// # Errors
/// [`NotAllowed`], for most users.
pub fn take(priority: u8) -> Result<(), NotAllowed> {
    let value = ThreadPriorityValue::try_from(priority).map_err(|_| NotAllowed(priority))?;
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(value), policy)
        .map_err(|_| NotAllowed(priority))
}

/// Gives the calling thread real-time priority at `priority`, at once or as soon as rtkit grants it; wake-ups that are as
/// exact as the kernel can meanwhile. Without either the thread runs on as it is, and one line of the log says so. Never waits.
pub fn take_or_ask(priority: u8) {
    // Timers of threads without real-time priority are late by 50 us otherwise, to save wake-ups.
    if let Err(error) = set_current_timer_slack(Some(NonZeroU64::MIN)) {
        debug!(%error, "timers keep their slack");
    }
    let thread = gettid();
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    match take(priority) {
        Ok(()) => debug!(name, priority, "real-time priority by the user's limits"),
        Err(not_allowed) => {
            let ask = move || match ask_rtkit(thread, priority) {
                Ok(()) => debug!(name, priority, "real-time priority by rtkit"),
                Err(error) => debug!(name, "no real-time priority: {not_allowed}, and rtkit says: {error}"),
            };
            if let Err(error) = std::thread::Builder::new().name("rtkit".to_owned()).spawn(ask) {
                debug!(%error, "no thread to ask rtkit");
            }
        }
    }
}

/// The desktop's RealtimeKit, on the system bus.
#[zbus::proxy(
    interface = "org.freedesktop.RealtimeKit1",
    default_service = "org.freedesktop.RealtimeKit1",
    default_path = "/org/freedesktop/RealtimeKit1"
)]
trait RealtimeKit {
    /// Gives a thread of the caller's SCHED_RR.
    fn make_thread_realtime(&self, thread: u64, priority: u32) -> zbus::Result<()>;

    /// The greatest priority that it grants.
    #[zbus(property)]
    fn max_realtime_priority(&self) -> zbus::Result<i32>;

    /// The greatest RLIMIT_RTTIME of a process that it grants anything, in microseconds.
    #[zbus(property, name = "RTTimeUSecMax")]
    fn rttime_usec_max(&self) -> zbus::Result<i64>;
}

/// Why rtkit grants nothing.
#[derive(Debug, thiserror::Error)]
enum RtkitError {
    #[error("{0}")]
    Bus(#[from] zbus::Error),
    #[error("no answer for {} s", PATIENCE.as_secs())]
    NoAnswer,
    #[error("a thread may run for {0} us")]
    NoRunTime(i64),
    #[error("{0}")]
    System(#[from] std::io::Error),
}

fn ask_rtkit(thread: Pid, priority: u8) -> Result<(), RtkitError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = async { tokio::time::timeout(PATIENCE, make_realtime(thread, priority)).await };
    runtime.block_on(asked).map_err(|_| RtkitError::NoAnswer)?
}

async fn make_realtime(thread: Pid, priority: u8) -> Result<(), RtkitError> {
    let bus = zbus::Connection::system().await?;
    // rtkit tells of no changes.
    let rtkit = RealtimeKitProxy::builder(&bus).cache_properties(CacheProperties::No).build().await?;
    let greatest = u32::try_from(rtkit.max_realtime_priority().await?).unwrap_or(0);
    limit_run_time(rtkit.rttime_usec_max().await?)?;
    let thread = thread.as_raw_nonzero().get().unsigned_abs();
    Ok(rtkit.make_thread_realtime(thread.into(), u32::from(priority).min(greatest)).await?)
}

/// "The process must have RLIMIT_RTTIME set": the kernel ends a real-time thread that runs for so long without a pause.
fn limit_run_time(most: i64) -> Result<(), RtkitError> {
    // Without any it would end every such thread of the process at once.
    let most = u64::try_from(most).ok().filter(|most| *most > 0).ok_or(RtkitError::NoRunTime(most))?;
    let set = getrlimit(Resource::Rttime);
    let lower = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    let limit = Rlimit { current: lower(set.current), maximum: lower(set.maximum) };
    setrlimit(Resource::Rttime, limit).map_err(std::io::Error::from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_would_end_the_thread_is_no_limit() {
        let limit = || getrlimit(Resource::Rttime).current;
        let before = limit();
        for most in [i64::MIN, -1, 0] {
            assert!(matches!(limit_run_time(most), Err(RtkitError::NoRunTime(_))), "{most}");
        }
        assert_eq!(limit(), before);
    }
}
