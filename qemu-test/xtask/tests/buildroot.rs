//! Values that `buildroot/` repeats, because make and Kconfig cannot read Rust, equal the originals.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Texts between `start` and `end`, for every `start` in `text`.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    let parts = text.split(start).skip(1);
    parts
        .map(|part| part.split_once(end).map_or(part, |(inside, _)| inside))
        .collect()
}

/// Every capacity of `limits.rs` with its default.
fn capacities() -> BTreeMap<String, String> {
    let limits = read("appliance/core/src/limits.rs");
    between(&limits, "= capacity!(\"XDNSD_LIMIT_", ")")
        .into_iter()
        .map(|entry| {
            let (name, default) = entry.split_once("\", ").expect("a name and its default");
            (name.to_owned(), default.to_owned())
        })
        .collect()
}

#[test]
fn menu_has_every_capacity_with_its_default() {
    let menu = read("buildroot/package/xdnsd/Config.in");
    let in_menu: BTreeMap<_, _> = between(&menu, "\nconfig BR2_PACKAGE_XDNSD_", "\n\n")
        .into_iter()
        .filter(|entry| entry.contains("\tint "))
        .map(|entry| {
            let name = entry.lines().next().expect("a name");
            let default = between(entry, "\tdefault ", "\n");
            (name.to_owned(), default.concat())
        })
        .collect();
    assert!(capacities().len() > 10);
    assert_eq!(in_menu, capacities());
}

#[test]
fn every_capacity_of_the_menu_reaches_the_compiler() {
    let package = read("buildroot/package/xdnsd/xdnsd.mk");
    let list = between(&package, "XDNSD_CAPACITIES = \\\n", "\n\n").concat();
    let mut handed_on: Vec<_> = list
        .split_whitespace()
        .filter(|word| *word != "\\")
        .map(str::to_owned)
        .collect();
    handed_on.sort();
    assert_eq!(handed_on, capacities().into_keys().collect::<Vec<_>>());
}

/// cargo-package sets its own profile, so the package has to repeat the profile of Cargo.toml.
#[test]
fn package_has_the_profile_of_the_manifest() {
    let manifest = read("Cargo.toml");
    let profile = between(&manifest, "[profile.release]\n", "\n\n").concat();
    let wanted: BTreeMap<_, _> = profile
        .lines()
        .filter_map(|line| line.split_once(" = "))
        // Buildroot strips by its own settings.
        .filter(|(key, _)| *key != "strip")
        .map(|(key, value)| (key.replace('-', "_").to_uppercase(), value.replace('"', "")))
        .collect();
    let package = read("buildroot/package/xdnsd/xdnsd.mk");
    let given: BTreeMap<_, _> = between(&package, "\tCARGO_PROFILE_RELEASE_", "\"\n")
        .into_iter()
        .chain(between(&package, "\tCARGO_PROFILE_RELEASE_", "\" \\\n"))
        .filter(|setting| !setting.contains('\n'))
        .filter_map(|setting| setting.split_once("=\""))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(given, wanted);
}

#[test]
fn package_has_the_version_of_the_workspace() {
    let version = format!("XDNSD_VERSION = {}\n", env!("CARGO_PKG_VERSION"));
    assert!(read("buildroot/package/xdnsd/xdnsd.mk").contains(&version));
}

/// `cargo xtask dist` writes the second licence file, and its hash beside that of the archive.
#[test]
fn package_names_the_licences_of_the_release() {
    let package = read("buildroot/package/xdnsd/xdnsd.mk");
    let files = between(&package, "\nXDNSD_LICENSE_FILES = ", "\n").concat();
    let written = read("qemu-test/xtask/src/dist/licences.rs");
    let written = between(&written, "pub const FILE: &str = \"", "\"").concat();
    assert_eq!(files, format!("LICENSE {written}"));
    assert!(read("buildroot/package/xdnsd/xdnsd.hash").contains("  LICENSE\n"));
}

/// The loader, the updater and the script that makes the disk agree on the file's name, size and header.
#[test]
fn environment_of_the_loader_has_one_place() {
    let board = "buildroot/board/xdnsd";
    let script = read(&format!("{board}/make-disk.sh"));
    let bytes = between(&script, "\nENVIRONMENT_BYTES=", "\n").concat();
    assert!(script.contains(">\"$images/boot-part/boot/grub/grubenv\""));
    let loader = read(&format!("{board}/grub.cfg"));
    assert!(loader.contains("environment=\"($disk,msdos1)/boot/grub/grubenv\""));
    let updater = read(&format!("{board}/rootfs-overlay/usr/sbin/xdnsd-update"));
    assert!(updater.contains(&format!("\nENVIRONMENT_BYTES={bytes}\n")));
    let mark = between(&updater, "\nENVIRONMENT_MARK=\"", "\"\n").concat();
    assert!(script.contains(&format!("printf '{mark}\\ngood=")));
}

/// Merged into a maker's configuration, it must not set anything that the maker has set: lists of files are overwritten.
#[test]
fn fragment_sets_nothing_but_the_package() {
    let fragment = read("buildroot/xdnsd.config");
    let lines = fragment.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.collect::<Vec<_>>(), ["BR2_PACKAGE_XDNSD=y"]);
}

/// A server that ends with this status is not restarted, by the supervisor or by systemd.
#[test]
fn bad_configuration_has_one_status() {
    let main = read("appliance/src/main.rs");
    let status = between(&main, "const BAD_CONFIG: u8 = ", ";").concat();
    let supervise = read("buildroot/package/xdnsd/supervise");
    assert!(supervise.contains(&format!("\nBAD_CONFIGURATION={status}\n")));
    let unit = read("buildroot/package/xdnsd/xdnsd.service");
    assert!(unit.contains(&format!("\nRestartPreventExitStatus={status}\n")));
}

/// `run --user` and systemd leave the server the same capabilities, and those for the keeper's account.
#[test]
fn unit_keeps_the_capabilities_that_the_server_keeps() {
    let account = read("appliance/src/os/account.rs");
    let kept = between(&account, "const KEPT: CapabilitySet = ", ";");
    let capabilities = read("appliance/src/os/capabilities.rs");
    let accounts = between(&capabilities, "const ACCOUNTS: CapabilitySet = ", ";");
    let kept = [kept, accounts].concat().concat();
    let named = kept.split("CapabilitySet::").skip(1);
    let is_name = |char: char| char.is_ascii_uppercase() || char == '_';
    let named = named.filter_map(|rest| rest.split(|char| !is_name(char)).next());
    let kept: Vec<_> = named.map(|name| format!("CAP_{name}")).collect();
    let kept = kept.join(" ");
    assert!(kept.starts_with("CAP_NET_BIND_SERVICE "), "{kept}");
    let unit = read("buildroot/package/xdnsd/xdnsd.service");
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert!(unit.contains(&format!("\n{key}={kept}\n")), "{key}: {kept}");
    }
}

/// Settings that do not depend on the machine are the same for all: compression, overlay, versions, packages.
#[test]
fn machines_differ_in_kernel_and_loader_alone() {
    let lines = |machine: &str| -> Vec<String> {
        let text = read(&format!("buildroot/configs/xdnsd_{machine}_defconfig"));
        let common = text.lines().filter(|line| {
            let of_machine = [
                "BR2_x86_64",
                "BR2_aarch64",
                "BR2_LINUX_KERNEL_CUSTOM_CONFIG_FILE",
                "BR2_LINUX_KERNEL_ZSTD",
                "BR2_LINUX_KERNEL_NEEDS_HOST_LIBELF",
                "BR2_TARGET_GRUB2_I386_PC",
                "BR2_TARGET_GRUB2_X86_64_EFI",
                "BR2_TARGET_GRUB2_BUILTIN_MODULES_PC",
            ];
            !of_machine.contains(&line.split('=').next().unwrap_or_default())
        });
        common.map(str::to_owned).collect()
    };
    assert_eq!(lines("aarch64_virt"), lines("x86_64"));
}

/// The power button needs kernel support, a listener, and an action.
#[test]
fn power_button_is_heard_on_every_machine() {
    let board = "buildroot/board/xdnsd";
    for machine in ["x86_64", "aarch64_virt"] {
        let kernel = read(&format!("{board}/linux-{machine}.config"));
        for option in ["CONFIG_ACPI_BUTTON=y", "CONFIG_INPUT_EVDEV=y"] {
            assert!(
                kernel.lines().any(|line| line == option),
                "{machine}: {option}"
            );
        }
    }
    let busybox = read(&format!("{board}/busybox.fragment"));
    assert!(busybox.contains("\nCONFIG_ACPID=y\n"));
    // busybox's acpid looks for this name by default.
    let action = read(&format!("{board}/rootfs-overlay/etc/acpi/PWRF/00000080"));
    assert!(action.contains("\nexec poweroff\n"));
}

/// If no slot boots, the loader restarts itself, with commands built into it in every image.
#[test]
fn loader_has_what_it_needs_to_try_again() {
    let script = read("buildroot/board/xdnsd/grub.cfg");
    let end: Vec<_> = script.lines().rev().take(2).collect();
    assert_eq!(end, ["reboot", "sleep 10"]);
    let lists = ["x86_64", "aarch64_virt"].map(|machine| {
        let config = read(&format!("buildroot/configs/xdnsd_{machine}_defconfig"));
        between(&config, "BR2_TARGET_GRUB2_BUILTIN_MODULES_", "\"\n")
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    assert_eq!(lists.each_ref().map(Vec::len), [2, 1]);
    let debian = read("qemu-test/xtask/src/image/disk.rs");
    let debian = between(&debian, "const LOADER_MODULES", "];").concat();
    for list in lists
        .iter()
        .flatten()
        .chain([&debian.replace(['"', ','], " ")])
    {
        for module in ["sleep", "reboot", "normal", "linux"] {
            let has = list.split_whitespace().any(|word| word == module);
            assert!(has, "{module} is not in {list}");
        }
    }
}

/// Drivers that the kernel builds as modules by default, and that nothing loads.
#[test]
fn kernels_build_no_modules_that_nobody_loads() {
    let fragments = [
        "linux.fragment",
        "linux-router.fragment",
        "linux-virtio.fragment",
    ];
    for (machine, own) in [("x86_64", true), ("aarch64_virt", false)] {
        let mut config = read(&format!("buildroot/board/xdnsd/linux-{machine}.config"));
        for fragment in fragments {
            config += &read(&format!("buildroot/board/xdnsd/{fragment}"));
        }
        let mut unset = vec![
            "TCP_CONG_BIC",
            "TCP_CONG_WESTWOOD",
            "TCP_CONG_HTCP",
            "EFIVAR_FS",
        ];
        unset.extend(own.then_some("X86_PKG_TEMP_THERMAL"));
        for option in unset {
            let line = format!("# CONFIG_{option} is not set");
            assert!(
                config.lines().any(|found| found == line),
                "{machine}: {line}"
            );
        }
        assert!(!config.contains("=m\n"), "{machine} asks for a module");
    }
}

/// Answers to questions that readers have asked: each word stands for one.
#[test]
fn readme_answers_what_a_stranger_asks() {
    let readme = read("buildroot/README.md");
    for (question, word) in [
        ("how long, and how much space?", "73 minutes and 6 GB"),
        (
            "can it be built from a mirror alone?",
            "`BR2_PRIMARY_SITE_ONLY=y`",
        ),
        ("how is a source of my own put in?", "_OVERRIDE_SRCDIR"),
        (
            "what does QEMU need `cx16=off` for?",
            "`cx16=off` hides one instruction",
        ),
        ("how do I log in?", "Log in as `root`, without a password"),
        ("what does a release need?", "cargo xtask dist"),
        (
            "how do I get the image's own configuration back?",
            "To have the image's own back",
        ),
    ] {
        assert!(readme.contains(word), "{question} ({word})");
    }
    // Two ports for the home. A guest without a card for the provider has no upstream: every name would fail.
    for command in between(&readme, "\nqemu-system-", "\n```") {
        let cards = command.matches("-device virtio-net-pci").count();
        assert_eq!(cards, 3, "qemu-system-{command}");
    }
}

/// A late lease is waited for. Buildroot's busybox gives up after three requests.
#[test]
fn lease_that_comes_late_is_waited_for() {
    let fragment = read("buildroot/board/xdnsd/busybox.fragment");
    let options = between(&fragment, "CONFIG_IFUPDOWN_UDHCPC_CMD_OPTIONS=\"", "\"").concat();
    let options: Vec<_> = options.split_whitespace().collect();
    assert!(
        options.contains(&"-b") && !options.contains(&"-n"),
        "{options:?}"
    );
}

/// Every path that differs between machines or output directories is remapped in rustc.
#[test]
fn wrapper_keeps_every_place_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let told = |home: Option<&str>| {
        let mut wrapper = Command::new(root.join(".cargo/rustc-anywhere"));
        wrapper.args(["echo", "--crate-name", "x"]);
        wrapper
            .env("HOME", "/home/me")
            .env("OUT_DIR", "/o/build/out");
        wrapper.env_remove("CARGO_HOME");
        wrapper.envs(home.map(|home| ("CARGO_HOME", home)));
        let done = wrapper.output().expect("it runs");
        String::from_utf8(done.stdout).expect("UTF-8")
    };
    let sources = root.canonicalize().expect("it is there");
    let sources = format!("--remap-path-prefix={}=/xdnsd", sources.display());
    for (home, cargo) in [
        (None, "--remap-path-prefix=/home/me/.cargo=/cargo"),
        (Some("/c/h"), "--remap-path-prefix=/c/h=/cargo"),
    ] {
        let told = told(home);
        assert!(told.starts_with("--crate-name x "), "{told}");
        for flag in [cargo, &sources, "--remap-path-prefix=/o/build/out=/out"] {
            assert!(
                told.split_whitespace().any(|word| word == flag),
                "{flag} is not in {told}"
            );
        }
    }
}

/// The release's own settings put the wrapper between cargo and rustc that removes paths.
#[test]
fn release_is_built_without_paths() {
    let settings = read("qemu-test/xtask/src/dist/vendor.rs");
    let wrapper = between(&settings, "rustc-wrapper = \"", "\"").concat();
    let script = read(&wrapper);
    assert!(script.starts_with("#!/bin/sh\n"), "{wrapper}");
    assert!(script.contains("--remap-path-prefix=\"$here=/xdnsd\""));
}
