//! How a load goes, on one line of the terminal.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use kvorum::load::{Load, LoadOptions};

/// Between looks at the load.
const REFRESH: Duration = Duration::from_millis(100);

/// Steps of the bar.
const STEPS: f64 = 1000.0;

const STYLE: &str = "{bar:30} {percent:>3} %  {msg}";

/// Shows how the load goes until it ends, if there is a terminal to show it on.
pub(super) fn show(load: &Load, options: &LoadOptions) {
    if !io::stderr().is_terminal() {
        return;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a constant")]
    let bar = ProgressBar::new(STEPS as u64);
    bar.set_style(ProgressStyle::with_template(STYLE).expect("the template is a constant"));
    let (mut seen, mut seen_at) = (0, Duration::ZERO);
    while !load.is_finished() {
        thread::sleep(REFRESH);
        let (elapsed, part) = load.progress();
        let counts = load.counts();
        let interval = elapsed.saturating_sub(seen_at).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "it is shown with three digits")]
        let rate = if interval > 0.0 { (counts.ok - seen) as f64 / interval } else { 0.0 };
        (seen, seen_at) = (counts.ok, elapsed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1")]
        bar.set_position((part * STEPS) as u64);
        let warming = if elapsed < options.warm_up { ", warming up" } else { "" };
        let refused = |count: u64, why: &str| match count {
            0 => String::new(),
            count => format!(", {count} times {why}"),
        };
        let unavailable = refused(counts.unavailable, "unavailable");
        let overloaded = refused(counts.overloaded, "overloaded");
        let ok = counts.ok;
        bar.set_message(format!("{ok} ok, {rate:.0} a second{unavailable}{overloaded}{warming}"));
    }
    bar.finish_and_clear();
}
