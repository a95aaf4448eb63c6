//! Tests of the image: on each kernel, with each kind of network device, and in failure cases.
//!
//! Each test boots its own machines and ends with one line. A boot that prints nothing at all is retried once: emulated
//! processors hang on rare occasions (a line reports it), and that is the emulator's fault.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::machine::Accel;
use crate::arguments::number_in;
use crate::image::{self, Arch, Image, Kernel, Recipe};
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use crate::test::tally::Tally;
use xdnsd_lab::privilege::{is_root, skip};

mod bench;
mod disks;
mod guest_tests;
mod network;

pub use bench::BOOT_LIMIT;
use bench::Bench;

/// Range of concurrent tests; each is a machine.
const JOB_RANGE: RangeInclusive<u32> = 1..=64;

/// A test of the image.
struct Case {
    name: &'static str,
    /// The kernel that it is about; with an external image, that image's is used.
    kernel: Kernel,
    arch: Arch,
    /// True if it needs a tap device.
    needs_root: bool,
    /// True if it only applies to the image built here.
    is_own_image: bool,
    main: fn(&Bench) -> Result<()>,
}

impl Case {
    const fn new(name: &'static str, kernel: Kernel, main: fn(&Bench) -> Result<()>) -> Self {
        Self {
            name,
            kernel,
            arch: Arch::X86_64,
            needs_root: false,
            is_own_image: false,
            main,
        }
    }

    const fn with_root(self) -> Self {
        Self {
            needs_root: true,
            ..self
        }
    }

    const fn own(self) -> Self {
        Self {
            is_own_image: true,
            ..self
        }
    }
}

const CASES: &[Case] = &[
    Case::new("native XDP answers on 6.12", Kernel::V6_12, network::native),
    Case::new("native XDP answers on 6.1", Kernel::V6_1, network::native).own(),
    Case::new(
        "native XDP answers on the newest kernel",
        Kernel::Newest,
        network::native,
    )
    .own(),
    Case::new("generic XDP answers", Kernel::V6_12, network::generic),
    Case::new(
        "without XDP the kernel's sockets answer",
        Kernel::V6_12,
        network::off,
    ),
    Case::new(
        "a driver that refuses XDP does not stop the service",
        Kernel::V6_12,
        network::refused,
    )
    .with_root(),
    Case::new(
        "two queues, frames from a tap device",
        Kernel::V6_12,
        network::two_queues,
    )
    .with_root(),
    Case::new(
        "a port goes and comes again under load",
        Kernel::V6_12,
        network::port_comes_and_goes,
    )
    .with_root(),
    Case::new(
        "queues that come with the attach are served",
        Kernel::V6_12,
        network::growing_queues,
    )
    .with_root(),
    Case::new(
        "zero copy where the kernel has it",
        Kernel::Newest,
        network::zero_copy,
    )
    .own(),
    Case::new(
        "both families, TCP, big answers, VLAN, short frames, fragments",
        Kernel::V6_12,
        network::frames,
    )
    .with_root(),
    Case::new("a reboot restores answers", Kernel::V6_12, disks::reboot),
    Case::new(
        "a power cut loses no file system",
        Kernel::V6_12,
        disks::power_cut,
    ),
    Case::new(
        "the power button ends the system in order",
        Kernel::V6_12,
        disks::power_button,
    ),
    Case::new(
        "a clock at 1970 does not matter",
        Kernel::V6_12,
        disks::clock_at_1970,
    ),
    Case::new(
        "a data partition that cannot be written",
        Kernel::V6_12,
        disks::read_only_data,
    ),
    Case::new(
        "a data partition that is full",
        Kernel::V6_12,
        disks::full_data,
    ),
    Case::new(
        "a bad configuration leaves the router reachable",
        Kernel::V6_12,
        disks::bad_configuration,
    ),
    Case::new(
        "an update that fails is undone",
        Kernel::V6_12,
        disks::update,
    ),
    Case::new(
        "where no slot starts the loader tries again",
        Kernel::V6_12,
        disks::no_slot,
    )
    .own(),
    Case::new(
        "an address of the home's side may be leased",
        Kernel::V6_12,
        disks::leased_address,
    )
    .own(),
    Case::new(
        "the black-box tests of VLANs",
        Kernel::V6_12,
        guest_tests::vlan,
    )
    .own(),
    Case::new(
        "the black-box tests of SYN cookies on 6.1",
        Kernel::V6_1,
        guest_tests::shield,
    )
    .own(),
    Case::new(
        "the black-box tests of limits per client on 6.1",
        Kernel::V6_1,
        guest_tests::limits,
    )
    .own(),
    Case::new(
        "the limits of the XDP programs on 6.1, frame by frame",
        Kernel::V6_1,
        guest_tests::limits_by_frame,
    )
    .own(),
    Case::new(
        "the black-box tests of SYN cookies with clients on 6.12",
        Kernel::V6_12,
        guest_tests::shield_clients,
    )
    .own(),
    Case::new(
        "the black-box tests of SYN cookies with clients on the newest kernel",
        Kernel::Newest,
        guest_tests::shield_clients,
    )
    .own(),
    Case {
        arch: Arch::Aarch64,
        ..Case::new("aarch64 boots and answers", Kernel::V6_12, network::native).own()
    },
];

/// Arguments of the image's tests.
#[derive(Debug, Args)]
pub struct ImageArguments {
    /// Runs only what has this in its name.
    pub filter: Option<String>,
    /// Includes the long tests of the image.
    #[arg(long)]
    pub long: bool,
    /// Runs only the tests of the image, on the one in this folder.
    #[arg(long, value_name = "DIR")]
    pub image: Option<PathBuf>,
    /// The server in the images for x86_64 [default: cargo builds it].
    #[arg(long, value_name = "FILE")]
    pub server: Option<PathBuf>,
    /// What runs the guest's instructions [default: tcg, which is the same everywhere].
    #[arg(long)]
    pub accel: Option<Accel>,
    /// Machines at once [default: one for each processor].
    #[arg(long, value_name = "N", value_parser = number_in(JOB_RANGE))]
    pub jobs: Option<u32>,
}

/// The command.
pub fn main(options: ImageArguments, signals: &Signals) -> Result<ExitCode> {
    setup::ensure_all(&[Purpose::Image], signals)?;
    let cases: Vec<&Case> = CASES.iter().filter(|case| options.wants(case)).collect();
    ensure!(
        !cases.is_empty(),
        "no test of the image has that in its name"
    );
    let images = Images::build(&options, &cases, signals);
    let tally = run_all(&options, &cases, &images, signals)?;
    println!("{tally}");
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl ImageArguments {
    fn jobs(&self) -> usize {
        let processors = || thread::available_parallelism().map_or(1, usize::from);
        self.jobs.map_or_else(processors, |jobs| jobs as usize)
    }

    fn wants(&self, case: &Case) -> bool {
        let is_named = self
            .filter
            .as_ref()
            .is_none_or(|filter| case.name.contains(filter.as_str()));
        is_named && (self.image.is_none() || !case.is_own_image)
    }
}

/// Images shared by the tests. One that cannot be built fails the tests that need it.
struct Images(Vec<(Arch, Kernel, Result<Image>)>);

impl Images {
    fn build(options: &ImageArguments, cases: &[&Case], signals: &Signals) -> Self {
        let mut images = Self(Vec::new());
        for case in cases {
            if images.get(case).is_none() {
                let image = Self::build_one(options, case, signals);
                images.0.push((case.arch, case.kernel, image));
            }
        }
        images
    }

    fn build_one(options: &ImageArguments, case: &Case, signals: &Signals) -> Result<Image> {
        let opened = options.image.as_deref().map(Image::open).transpose()?;
        let arch = opened.as_ref().map_or(case.arch, |image| image.arch);
        if arch == Arch::Aarch64 {
            setup::ensure_all(&[Purpose::ImageAarch64], signals)?;
        }
        if let Some(image) = opened {
            return Ok(image);
        }
        let server = options.server.clone().filter(|_| case.arch == Arch::X86_64);
        image::build(&Recipe {
            arch: case.arch,
            kernel: case.kernel,
            server,
        })
    }

    fn get(&self, case: &Case) -> Option<&Result<Image>> {
        let found = self
            .0
            .iter()
            .find(|(arch, kernel, _)| *arch == case.arch && *kernel == case.kernel);
        found.map(|(_, _, image)| image)
    }

    fn find(&self, case: &Case) -> Result<&Image> {
        let image = self.get(case).context("its image was not built")?;
        image
            .as_ref()
            .map_err(|error| anyhow::anyhow!("its image cannot be built: {error:#}"))
    }
}

/// Runs the tests, as many at once as there are jobs.
fn run_all(
    options: &ImageArguments,
    cases: &[&Case],
    images: &Images,
    signals: &Signals,
) -> Result<Tally> {
    let waiting: Mutex<VecDeque<&Case>> = Mutex::new(cases.iter().copied().collect());
    let total = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..options.jobs() {
            scope.spawn(|| {
                while let Some(case) = waiting
                    .lock()
                    .ok()
                    .and_then(|mut waiting| waiting.pop_front())
                {
                    let tally = run_one(options, case, images);
                    if let Ok(mut total) = total.lock() {
                        *total += tally;
                    }
                }
            });
        }
        while waiting.lock().is_ok_and(|waiting| !waiting.is_empty()) {
            if signals.wait(std::time::Duration::from_millis(200)) {
                // Running tests end with this process; the others do not start.
                waiting
                    .lock()
                    .map(|mut waiting| waiting.clear())
                    .unwrap_or_default();
            }
        }
    });
    if signals.wait(std::time::Duration::ZERO) {
        bail!("interrupted");
    }
    total
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a test panicked"))
}

fn run_one(options: &ImageArguments, case: &Case, images: &Images) -> Tally {
    if case.needs_root && !is_root() {
        skip(case.name, "a tap device needs root");
        return Tally::SKIPPED;
    }
    let started = Instant::now();
    let outcome = images.find(case).and_then(|image| {
        let accel = options.accel.unwrap_or(Accel::Tcg);
        let accel = Accel::choose(Some(accel), image)?;
        let bench = Bench::new(case, image, accel, options.long)?;
        (case.main)(&bench)
    });
    let secs = started.elapsed().as_secs_f64();
    match outcome {
        Ok(()) => {
            println!("ok {} ({secs:.0} s)", case.name);
            Tally {
                passed: 1,
                ..Tally::default()
            }
        }
        Err(error) => {
            println!("FAILED {} ({secs:.0} s):\n{error:#}", case.name);
            Tally::FAILED
        }
    }
}
