//! Damage of every kind to a small file, and the writer's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xdnsd_core::limits::{CACHE_ENTRIES, CACHE_ENTRIES_MAX};
use xdnsd_lab::wait::wait_until;

use super::*;
use crate::store::SnapshotWriter;
use crate::store::shared::tests::{BODY, fill, head, names, test_cache};
use crate::testing::Folder;

const NAMES: [&str; 3] = ["a.example.", "b.example.", "c.example."];

/// The store of a snapshot in the folder.
fn store_in(folder: &Folder) -> Store {
    Store::new(&folder.path().join("cache"), 86_400)
}

/// Stored now, for five minutes.
fn fresh() -> Head {
    Head {
        stored: clock::now(),
        ..head(300)
    }
}

fn load_anew(store: &Store, cache: &SharedCache) -> Restored {
    cache.clear();
    store.load(cache, clock::now())
}

#[test]
fn what_is_saved_is_restored() {
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let store = store_in(&folder);
    assert_eq!(
        store.load(cache, clock::now()).to_string(),
        "no snapshot to restore"
    );
    fill(cache, &NAMES, &fresh());
    assert_eq!(store.save(cache).expect("a folder to write to"), 6);
    let restored = load_anew(&store, cache);
    assert_eq!(
        (restored.answers, restored.broken, restored.missing),
        (6, 0, 0),
        "{restored}"
    );
    assert!(!restored.is_faulty());
    assert_eq!(names(cache), NAMES);
    let mut walk = Walk::new(cache);
    while walk.step() {
        for (_, kept, body) in walk.entries() {
            assert_eq!(body, BODY);
            assert_eq!(
                (kept.ttl_secs, kept.answers, kept.restored),
                (300, 1, !clock::wall_is_synchronised())
            );
        }
    }
    let listed: Vec<_> = fs::read_dir(folder.path()).expect("the folder").collect();
    assert_eq!(listed.len(), 1, "nothing unfinished is left: {listed:?}");
}

/// Depends on the kernel's clock; each other reason can be produced.
#[test]
fn why_an_age_is_unknown_is_said() {
    let header = |saved_secs, clock_synchronised| SnapshotHeader {
        marker: Marker([7; size_of::<Marker>()]),
        records: Some(0),
        saved_secs,
        clock_synchronised,
        servers: ServersTag::default(),
    };
    let now = clock::wall_secs();
    let expected = |if_synchronised| {
        if clock::wall_is_synchronised() {
            if_synchronised
        } else {
            Some(UnknownAge::NotSynchronised)
        }
    };
    assert_eq!(UnknownAge::of(None), Some(UnknownAge::Header));
    assert_eq!(UnknownAge::of(Some(&header(now, true))), expected(None));
    assert_eq!(
        UnknownAge::of(Some(&header(now, false))),
        expected(Some(UnknownAge::NotSynchronisedThen))
    );
    assert_eq!(
        UnknownAge::of(Some(&header(now + 1_000_000, true))),
        expected(Some(UnknownAge::Future))
    );
    let restored = Restored {
        file: Some("/data/cache".into()),
        answers: 7,
        doubt: Some(UnknownAge::NotSynchronised),
        ..Restored::default()
    };
    assert_eq!(
        restored.to_string(),
        "restored 7 answers from /data/cache, of unknown age (the kernel says that the clock is not synchronised), to be served as stale"
    );
}

#[test]
fn an_age_that_is_known_is_taken_off_and_failures_and_the_long_stale_stay_out() {
    let cache = test_cache!(8192);
    let store = store_in(&Folder::new());
    let (saved_at, now) = (clock::now(), clock::now());
    let mut records = Vec::new();
    let mut add = |name: &[u8], head: Head| {
        let key = xdnsd_core::answer::Key {
            name,
            qtype: 1,
            dnssec_ok: false,
            checking_disabled: false,
            view: 0,
        };
        let mut buffer = [0; RECORD_MAX];
        let encoder = Encoder {
            marker: Marker([7; 8]),
            now: saved_at,
        };
        let answer = xdnsd_core::answer::Answer {
            head: &head,
            body: BODY,
        };
        let len = encoder
            .encode(&mut buffer, &key, &answer)
            .expect("well-formed");
        records.extend_from_slice(&buffer[..len]);
    };
    let aged = |age_secs| Head {
        stored: saved_at.sub_secs(age_secs),
        ..head(300)
    };
    add(b"\x05fresh\0", aged(100));
    add(b"\x05stale\0", aged(350));
    add(b"\x04dead\0", aged(300 + 86_400));
    add(
        b"\x06failed\0",
        Head {
            rcode: rcode::SERVFAIL,
            ..aged(0)
        },
    );
    let restored = store.restore(
        SnapshotRecords::new(&records, Marker([7; 8])),
        cache,
        now,
        Some(50),
    );
    assert_eq!(
        (restored.answers, restored.expired, restored.broken),
        (2, 2, 0)
    );
    let mut walk = Walk::new(cache);
    while walk.step() {
        for (key, head, _) in walk.entries() {
            let left = i64::from(head.expires().secs_since(now))
                - i64::from(now.secs_since(head.expires()));
            let expected = if key.name == b"\x05fresh\0" {
                150
            } else {
                -100
            };
            assert!((left - expected).abs() <= 1, "{left} for {expected}");
            assert!(!head.restored);
        }
    }
}

/// Writes a snapshot of three names and returns its bytes.
fn sample(folder: &Folder, cache: &SharedCache) -> Vec<u8> {
    fill(cache, &NAMES, &fresh());
    store_in(folder).save(cache).expect("a folder to write to");
    fs::read(folder.path().join("cache")).expect("the snapshot")
}

#[test]
fn a_file_cut_at_any_length_gives_what_is_whole() {
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let store = store_in(&folder);
    let whole = sample(&folder, cache);
    let mut last = 0;
    for len in 0..=whole.len() {
        fs::write(folder.path().join("cache"), &whole[..len]).expect("the folder");
        let restored = load_anew(&store, cache);
        assert_eq!(restored.answers, cache.len(), "{len}: {restored}");
        assert!(
            restored.answers >= last,
            "{len}: a longer file gives no less"
        );
        last = restored.answers;
        assert_eq!(restored.to_string().lines().count(), 1);
        if len < whole.len() {
            assert!(restored.is_faulty(), "{len}: it is said: {restored}");
        }
    }
    assert_eq!(last, 6);
}

#[test]
fn any_flipped_byte_costs_at_most_its_record() {
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let store = store_in(&folder);
    let whole = sample(&folder, cache);
    for at in 0..whole.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            fs::write(folder.path().join("cache"), &bytes).expect("the folder");
            let restored = load_anew(&store, cache);
            let expected = if at < SnapshotHeader::LEN { 6 } else { 5 };
            let foreign = restored.file.is_none() && at < 10;
            assert!(
                restored.answers >= expected || foreign,
                "byte {at} ^ {mask:#x}: {restored}"
            );
            assert_eq!(restored.answers, cache.len());
            assert!(
                names(cache)
                    .iter()
                    .all(|name| NAMES.contains(&name.as_str())),
                "nothing is made up"
            );
        }
    }
}

#[test]
fn the_generation_before_serves_where_the_newest_is_useless() {
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let store = store_in(&folder);
    let first = sample(&folder, cache);
    fill(cache, &["d.example."], &fresh());
    store.save(cache).expect("a folder to write to");
    let newest = folder.path().join("cache");
    assert_eq!(
        fs::read(folder.path().join("cache.old")).expect("the one before"),
        first
    );
    assert_eq!(load_anew(&store, cache).answers, 8);
    let future = [b"XDNSDSNP".as_slice(), &2_u16.to_le_bytes(), &[0; 100]].concat();
    for (bytes, said) in [
        (&b"\x7fELF and so on"[..], "not a snapshot"),
        (&future, "a snapshot of format 2"),
        (&first[..20], "cut short"),
        (
            &first[..SnapshotHeader::LEN + 3],
            "nothing but broken records",
        ),
        (b"", "cut short"),
    ] {
        fs::write(&newest, bytes).expect("the folder");
        let restored = load_anew(&store, cache);
        assert_eq!(restored.answers, 6, "{said}");
        let line = restored.to_string();
        assert!(
            line.starts_with(&format!(
                "restored 6 answers from {}",
                folder.path().join("cache.old").display()
            )),
            "{line}"
        );
        assert!(line.contains(said), "{line}");
    }
    fs::remove_file(&newest).expect("the newest");
    assert_eq!(
        load_anew(&store, cache).answers,
        6,
        "power was cut between the two renames"
    );
    fs::create_dir(&newest).expect("a folder in its place");
    assert_eq!(
        load_anew(&store, cache).answers,
        6,
        "what cannot be read at all"
    );
}

/// After a start with another resolver, its answers count. Where either side does not know, as with servers that a file names, the
/// answers stay.
#[test]
fn answers_of_servers_that_are_not_asked_any_more_are_not_restored() {
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let store = store_in(&folder);
    let (one, other) = (ServersTag::of("192.0.2.1"), ServersTag::of("192.0.2.2"));
    for (saved, present, expected) in [
        (one, one, 6),
        (one, other, 0),
        (one, ServersTag::default(), 6),
        (ServersTag::default(), one, 6),
    ] {
        cache.set_servers(saved);
        sample(&folder, cache);
        // The generation before has the same tag.
        store.save(cache).expect("a folder to write to");
        cache.set_servers(present);
        let restored = load_anew(&store, cache);
        assert_eq!(restored.answers, expected, "{saved:?} {present:?}");
        let line = restored.to_string();
        let told = line.contains("cache: has answers of servers that are not asked any more");
        assert_eq!(told, expected == 0, "{line}");
    }
}

#[test]
fn a_file_of_any_length_is_read_no_further_than_a_snapshot_goes() {
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let whole = sample(&folder, cache);
    let file = File::options()
        .write(true)
        .open(folder.path().join("cache"))
        .expect("the snapshot");
    file.set_len(1 << 40).expect("a sparse file");
    let restored = load_anew(&store_in(&folder), cache);
    assert_eq!((restored.answers, restored.broken), (6, 1), "{restored}");
    assert!(
        restored
            .to_string()
            .ends_with("longer than a snapshot of this cache can be"),
        "{restored}"
    );
    assert!(whole.len() < file_bytes_max(cache.shard_count()));
}

/// A restart may change the capacity: what fits of the larger cache is there, and all of a smaller one.
#[test]
fn a_snapshot_of_a_cache_of_another_size_is_read() {
    let (large, default) = (test_cache!(CACHE_ENTRIES_MAX), test_cache!(CACHE_ENTRIES));
    let folder = Folder::new();
    let store = store_in(&folder);
    let names: Vec<String> = (0..3 * CACHE_ENTRIES / 4)
        .map(|index| format!("n{index}.example"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    fill(large, &names, &fresh());
    let saved = store.save(large).expect("written");
    assert!(saved > CACHE_ENTRIES, "{saved}");
    let restored = store.load(default, clock::now());
    assert_eq!(
        (restored.answers, restored.broken),
        (saved, 0),
        "{restored}"
    );
    assert!(default.len() > CACHE_ENTRIES * 9 / 10, "{}", default.len());
    let saved = store.save(default).expect("written");
    large.clear();
    let restored = store.load(large, clock::now());
    assert_eq!(
        (restored.answers, large.len()),
        (saved, saved),
        "{restored}"
    );
}

#[test]
fn the_writer_writes_what_changed_and_only_that() {
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let path = folder.path().join("cache");
    let changes = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&changes);
    let keep = |interval| {
        let count = Arc::clone(&count);
        SnapshotWriter::spawn(store_in(&folder), cache, interval, move || {
            count.load(Ordering::Relaxed)
        })
        .expect("a thread")
    };
    let far = Duration::from_secs(3600);
    keep(far).finish();
    assert!(!path.exists(), "nothing changed");
    fill(cache, &NAMES, &fresh());
    let writer = keep(far);
    changes.fetch_add(1, Ordering::Relaxed);
    assert_eq!(writer.handle().save(), Ok(6), "asked for");
    fs::remove_file(&path).expect("it was written");
    writer.finish();
    assert!(!path.exists(), "nothing changed since");
    let writer = keep(far);
    changes.fetch_add(1, Ordering::Relaxed);
    writer.finish();
    assert!(path.exists(), "written at the end");
    fs::remove_file(&path).expect("it was written");
    let writer = keep(Duration::from_millis(1));
    changes.fetch_add(1, Ordering::Relaxed);
    wait_until(
        "a snapshot is written by the interval",
        Duration::from_secs(10),
        || path.exists(),
    )
    .expect("the interval is a millisecond");
    writer.finish();
}

/// An account that may write to the folder prepares the next file name.
#[test]
fn the_unfinished_file_is_never_what_somebody_else_put_there() {
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let store = store_in(&folder);
    fill(cache, &NAMES, &fresh());
    let (victim, unfinished) = (
        folder.path().join("victim"),
        folder.path().join("cache.tmp"),
    );
    type Plant = fn(&Path, &Path);
    let plants: [Plant; 4] = [
        |victim, place| std::os::unix::fs::symlink(victim, place).expect("a link"),
        |victim, place| fs::hard_link(victim, place).expect("a hard link"),
        |_, place| nix::unistd::mkfifo(place, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO"),
        |_, place| fs::write(place, "left by a crash").expect("written"),
    ];
    for plant in plants {
        fs::write(&victim, "precious").expect("written");
        plant(&victim, &unfinished);
        assert_eq!(store.save(cache).expect("saved"), 6);
        assert_eq!(fs::read(&victim).expect("there"), b"precious");
        assert_eq!(load_anew(&store, cache).answers, 6);
        assert_eq!(names(cache), NAMES);
    }
    fs::create_dir(&unfinished).expect("a folder");
    let error = store.save(cache).expect_err("in the way").to_string();
    let expected = format!(
        "{}: is a folder, not a file; no snapshot can be written",
        unfinished.display()
    );
    assert_eq!(error, expected);
    assert_eq!(load_anew(&store, cache).answers, 6, "as it was before");
}

#[test]
fn a_snapshot_that_somebody_else_could_have_written_is_not_believed() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let store = store_in(&folder);
    fill(cache, &NAMES, &fresh());
    store.save(cache).expect("saved");
    let file = folder.path().join("cache");
    let with_mode =
        |mode| fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("mode");
    let refused = |why: &str| {
        let restored = load_anew(&store, cache);
        assert_eq!(restored.answers, 0, "{why}");
        assert!(
            restored.is_faulty() && restored.to_string().contains(why),
            "{restored}"
        );
    };
    for mode in [0o666, 0o660, 0o602] {
        with_mode(mode);
        refused("others may write to it");
    }
    // Readable for others: they learn names, but cannot forge any.
    with_mode(0o644);
    assert_eq!(load_anew(&store, cache).answers, 6);
    if chown(&file, Some(12_345), None).is_ok() {
        refused("belongs to user 12345");
        chown(&file, Some(0), None).expect("given back");
    }
    assert_eq!(load_anew(&store, cache).answers, 6);
    let moved = folder.path().join("elsewhere");
    fs::rename(&file, &moved).expect("renamed");
    std::os::unix::fs::symlink(&moved, &file).expect("a link");
    refused("is a symbolic link, not a file");
}

#[test]
fn what_is_no_file_keeps_its_name_and_nothing_waits_for_it() {
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let store = store_in(&folder);
    let file = folder.path().join("cache");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    assert!(
        store
            .load(cache, clock::now())
            .to_string()
            .contains("is a FIFO, not a file")
    );
    assert!(store.save(cache).is_err());
    fs::remove_file(&file).expect("removed");
    fs::create_dir(&file).expect("a folder");
    assert!(
        store
            .load(cache, clock::now())
            .to_string()
            .contains("is a folder, not a file")
    );
    let error = store.save(cache).expect_err("a folder").to_string();
    let expected = format!(
        "{}: is a folder, not a file; no snapshot can be written",
        file.display()
    );
    assert_eq!(error, expected);
    assert!(file.is_dir() && !folder.path().join("cache.old").exists());
}

/// Landlock does not let a link be renamed, and without it the link would become the generation before.
#[test]
fn a_link_is_told_before_and_keeps_its_name() {
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let store = store_in(&folder);
    let [file, before] = ["cache", "cache.old"].map(|name| folder.path().join(name));
    let target = folder.path().join("elsewhere");
    let why = "is a symbolic link, not a file: name what it leads to";
    for exists in [false, true] {
        if exists {
            assert!(store.save(cache).is_ok());
            fs::rename(&file, &target).expect("renamed");
        }
        std::os::unix::fs::symlink(&target, &file).expect("a link");
        let expected = format!("{}: {why}; no snapshot can be written", file.display());
        let told = store.obstacle().map(|obstacle| obstacle.what);
        assert_eq!(told.as_ref(), Some(&expected));
        assert_eq!(store.save(cache).expect_err("a link").to_string(), expected);
        assert!(file.is_symlink() && !before.is_symlink());
        fs::remove_file(&file).expect("removed");
    }
    std::os::unix::fs::symlink(&target, &before).expect("a link");
    let expected = format!(
        "{}: {why}; the snapshot before the newest is not kept",
        before.display()
    );
    assert_eq!(store.doubt().map(|doubt| doubt.what), Some(expected));
    assert!(store.save(cache).is_ok() && store.save(cache).is_ok());
    assert!(before.is_symlink());
}

/// Such as the config, whose path was written twice.
#[test]
fn a_file_of_somebody_else_is_neither_replaced_nor_renamed() {
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let store = store_in(&folder);
    fill(cache, &["a.example."], &fresh());
    const FOREIGN: [&[u8]; 2] = [b"[[interface]]\nname = \"lan0\"\n", b"x"];
    let [newest, before] = ["cache", "cache.old"].map(|name| folder.path().join(name));
    let foreign = |file: &Path| {
        let file = file.display();
        format!("{file}: exists and is not a snapshot: remove it, or name another file; ")
    };
    for text in FOREIGN {
        fs::write(&newest, text).expect("the folder");
        let error = store.save(cache).expect_err("not ours").to_string();
        assert_eq!(error, foreign(&newest) + "no snapshot can be written");
        assert_eq!(fs::read(&newest).expect("as it was"), text);
        assert!(!before.exists());
    }
    fs::remove_file(&newest).expect("somebody else's");
    let answers = store.save(cache).expect("written");
    let again = test_cache!(8192);
    // The newest can be written, and the one before is not kept.
    for text in FOREIGN {
        fs::write(&before, text).expect("the folder");
        for _ in 0..2 {
            assert_eq!(store.save(cache).expect("written"), answers);
            assert_eq!(fs::read(&before).expect("as it was"), text);
        }
        assert_eq!(store.load(again, clock::now()).answers, answers);
        let told = foreign(&before) + "the snapshot before the newest is not kept";
        assert_eq!(store.trouble(), Some(told));
    }
    fs::remove_file(&before).expect("somebody else's");
    for file in [&newest, &before] {
        for left in [&b""[..], &[0; 4096], &[0xff; 330], &[0xff; 3]] {
            fs::write(file, left).expect("the folder");
            store.save(cache).expect("what a power cut has left");
            assert_eq!(store.trouble(), None);
        }
        fs::remove_file(&newest).expect("a snapshot");
        fs::remove_file(&before).expect("the one before");
    }
}

/// The message in advance equals that of a failed write, with the place in the config that names the snapshot.
#[test]
fn what_stands_in_the_way_of_a_snapshot_is_known_before_one_is_written() {
    let cache = test_cache!(8192);
    let folder = Folder::new();
    let store = |path: &Path| Store::new(path, 60).named_at("f:9:1: cache.snapshot");
    let long = "x".repeat(253);
    for name in ["cache", "not/there/yet/cache"] {
        assert_eq!(
            store(&folder.path().join(name)).obstacle(),
            None,
            "it is made"
        );
    }
    fs::write(folder.path().join("file"), "").expect("written");
    for folders in ["folder", "before.old", "unfinished.tmp"] {
        fs::create_dir(folder.path().join(folders)).expect("a folder");
    }
    let here = |name: &str| folder.path().join(name);
    for (path, at, what) in [
        (here("file/cache"), here("file"), "this is not a folder"),
        (
            here("file/not/there/cache"),
            here("file"),
            "this is not a folder",
        ),
        (here("folder"), here("folder"), "is a folder, not a file"),
        (
            here("unfinished"),
            here("unfinished.tmp"),
            "is a folder, not a file",
        ),
        (
            "/dev/null".into(),
            "/dev/null".into(),
            "is a device, not a file",
        ),
        (
            "/proc/version".into(),
            "/proc".into(),
            "proc is a file system of the kernel: others cannot make files there",
        ),
        (
            here(&long),
            here(&(long.clone() + ".tmp")),
            "File name too long (os error 36)",
        ),
    ] {
        let store = store(&path);
        let expected = format!("{}: {what}; no snapshot can be written", at.display());
        let obstacle = store.obstacle().map(|obstacle| obstacle.what);
        assert_eq!(obstacle, Some(expected.clone()));
        let error = store.save(cache).expect_err("nothing can be written");
        assert_eq!(
            error.to_string(),
            format!("f:9:1: cache.snapshot: {expected}")
        );
    }
    let store = store(&here("before"));
    store.save(cache).expect("the newest has its name");
    let told = format!(
        "f:9:1: cache.snapshot: {}: is a folder, not a file; the snapshot before the newest is not kept",
        here("before.old").display()
    );
    assert_eq!((store.obstacle(), store.trouble()), (None, Some(told)));
}
