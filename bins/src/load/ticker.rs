//! A clock that wakes at a moment, to some microseconds: tokio's own timers know milliseconds.

use std::io;
use std::time::Duration;

/// Two wakes are at least so far apart: what is due between them begins together. It is the price
/// of a wake, and shows in the latencies, which count from the time that was meant.
pub(super) const WAKES_APART: Duration = Duration::from_micros(100);

#[cfg(target_os = "linux")]
pub(super) use linux::Ticker;

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::Ticker;

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    use super::{Duration, io};

    /// A timer of the kernel's.
    #[derive(Debug)]
    pub(in super::super) struct Ticker {
        timer: AsyncFd<OwnedFd>,
    }

    impl Ticker {
        pub(in super::super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            // SAFETY: the timer is an open descriptor that the `AsyncFd` owns and nobody else closes,
            // and an `OwnedFd` names the same one all its life.
            let timer = unsafe { AsyncFd::register(timer)? };
            Ok(Self { timer })
        }

        /// Waits for so long.
        pub(in super::super) async fn wait(&mut self, time: Duration) -> io::Result<()> {
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            // Zero would switch the timer off.
            let time = time.max(Duration::from_nanos(1));
            let once = Itimerspec {
                it_interval: none,
                it_value: Timespec {
                    tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: time.subsec_nanos().into(),
                },
            };
            timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            // Setting it again makes it unread: nobody has to read how often it went off.
            self.timer.readable().await?.clear_ready();
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::{Duration, io};

    /// A timer of tokio's.
    #[derive(Debug)]
    pub(in super::super) struct Ticker;

    impl Ticker {
        pub(in super::super) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        /// Waits for so long.
        pub(in super::super) async fn wait(&mut self, time: Duration) -> io::Result<()> {
            tokio::time::sleep(time).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_waits_as_long_as_it_is_told_and_again() {
        let mut ticker = Ticker::new().unwrap();
        for micros in [0, 300, 2_000, 50] {
            let began = Instant::now();
            ticker.wait(Duration::from_micros(micros)).await.unwrap();
            assert!(began.elapsed() >= Duration::from_micros(micros));
        }
    }
}
