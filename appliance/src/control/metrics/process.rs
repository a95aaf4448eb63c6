//! What runs, since when, and what it has read: build, start, the last reload, and lists.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Reading;
use super::exposition::Exposition;
use crate::os::clock;

/// A file with blocked or allowed names, what it is for, and the number of its rules that are in force.
pub type ListReading = (String, &'static str, u64);

/// When config and files were read, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadTimes {
    /// At the start.
    started: u64,
    /// Last.
    last: u64,
    /// True if all of it was taken then.
    is_whole: bool,
}

static TIMES: Mutex<ReadTimes> = Mutex::new(ReadTimes {
    started: 0,
    last: 0,
    is_whole: false,
});

fn times() -> MutexGuard<'static, ReadTimes> {
    TIMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that config and files have been read now, and whether all of it was taken. The first time is the start.
pub fn have_read(is_whole: bool) {
    let mut times = times();
    *times = times.read_at(clock::wall_secs(), is_whole);
}

/// Reads them.
#[must_use]
pub fn read() -> ReadTimes {
    *times()
}

impl ReadTimes {
    const fn read_at(self, now: u64, is_whole: bool) -> Self {
        Self {
            started: if self.started == 0 { now } else { self.started },
            last: now,
            is_whole,
        }
    }
}

impl Reading {
    pub(super) fn process_families(&self, out: &mut dyn Exposition) {
        let ReadTimes {
            started,
            last,
            is_whole,
        } = self.read_times;
        out.family("build_info", "The build, with its version", "gauge");
        out.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        for (name, help, value) in [
            (
                "start_time_seconds",
                "When the process started, since 1970",
                started,
            ),
            (
                "config_last_reload_timestamp_seconds",
                "When config and files were last read because somebody asked, since 1970; at first the start",
                last,
            ),
            (
                "config_last_reload_successful",
                "Whether all of it was taken then",
                is_whole.into(),
            ),
        ] {
            out.family(name, help, "gauge");
            out.sample(name, &[], value);
        }
        let help = "Rules in force of each file with blocked or allowed names";
        out.family("list_rules", help, "gauge");
        for (file, purpose, rules) in &self.lists {
            let labels = [("file", file.as_str()), ("purpose", purpose)];
            out.sample("list_rules", &labels, *rules);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_stays_and_the_last_reload_is_told_with_its_result() {
        let started = ReadTimes::default().read_at(1_700_000_000, true);
        let reading = Reading {
            read_times: started.read_at(1_700_000_060, false),
            lists: vec![("/etc/a \"b\"".into(), "block", 7)],
            ..Reading::default()
        };
        let text = reading.prometheus();
        for line in [
            concat!(
                "xdnsd_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1\n"
            ),
            "xdnsd_start_time_seconds 1700000000\n",
            "xdnsd_config_last_reload_timestamp_seconds 1700000060\n",
            "xdnsd_config_last_reload_successful 0\n",
            "xdnsd_list_rules{file=\"/etc/a \\\"b\\\"\",purpose=\"block\"} 7\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
