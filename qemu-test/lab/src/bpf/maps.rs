//! Maps of our own programs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::{Attributes, Program, bpf, owned};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_PROG_ARRAY: u32 = 3;
/// Bytes of a map's name with its closing zero.
const NAME_LEN: usize = 16;

/// An array of 64-bit words that programs address directly ([`super::instruction::Instruction::set_map_value`]).
#[derive(Debug)]
pub struct Words {
    map: OwnedFd,
    count: usize,
}

impl Words {
    /// `count` words of zero.
    pub fn new(count: usize) -> io::Result<Self> {
        let map = create(BPF_MAP_TYPE_ARRAY, count * size_of::<u64>(), 1, "words")?;
        Ok(Self { map, count })
    }

    /// Descriptor, for programs.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.map.as_raw_fd()
    }

    /// Reads all words. Each is consistent; concurrent changes may be seen in part.
    pub fn read(&self) -> io::Result<Vec<u64>> {
        let mut words = vec![0u64; self.count];
        let key = 0u32;
        let mut attributes = Element {
            map: self.map.as_raw_fd(),
            padding: 0,
            key: &raw const key as u64,
            value: words.as_mut_ptr() as u64,
            flags: 0,
        };
        bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes)?;
        Ok(words)
    }

    /// Replaces all words. No program may change them meanwhile.
    ///
    /// # Panics
    /// The number of words differs.
    pub fn write(&self, words: &[u64]) -> io::Result<()> {
        assert_eq!(words.len(), self.count, "all words at once");
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        set(self.map.as_fd(), 0, &bytes)
    }
}

/// A program array with one entry, for a tail call.
#[derive(Debug)]
pub struct Slot(OwnedFd);

impl Slot {
    /// An empty slot.
    pub fn new() -> io::Result<Self> {
        create(BPF_MAP_TYPE_PROG_ARRAY, size_of::<RawFd>(), 1, "slot").map(Self)
    }

    /// Descriptor, for programs.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Puts a program into the slot. It has to be of the same type as the caller.
    pub fn set(&self, program: &Program) -> io::Result<()> {
        set(self.0.as_fd(), 0, &program.0.as_raw_fd().to_ne_bytes())
    }
}

/// Makes a map with keys of four bytes.
pub(super) fn create(kind: u32, value: usize, entries: u32, name: &str) -> io::Result<OwnedFd> {
    let mut letters = [0; NAME_LEN];
    letters[..name.len()].copy_from_slice(name.as_bytes());
    let mut attributes = MapCreate {
        map_type: kind,
        key_size: size_of::<u32>() as u32,
        value_size: value as u32,
        max_entries: entries,
        name: letters,
        ..MapCreate::default()
    };
    bpf(BPF_MAP_CREATE, &mut attributes).map(owned)
}

/// Sets the element `key` to `value`, which has the map's value size.
pub(super) fn set(map: BorrowedFd<'_>, key: u32, value: &[u8]) -> io::Result<()> {
    let mut attributes = Element {
        map: map.as_raw_fd(),
        padding: 0,
        key: &raw const key as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; NAME_LEN],
}
// SAFETY: 44 bytes of integers without padding, no pointers.
unsafe impl Attributes for MapCreate {}

#[repr(C)]
struct Element {
    map: RawFd,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}
// SAFETY: padding is a field; every constructor points key and value at memory that outlives the call and has the size of the
// map's keys and values.
unsafe impl Attributes for Element {}
