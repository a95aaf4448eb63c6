//! Random bytes from the operating system's generator, fetched in blocks, so that most questions cost no system call.
//! getrandom(2) needs no file: there may be no /dev.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes fetched at once.
const BLOCK: usize = 256;

/// Random bytes from the system's generator; waits until it is seeded: a router has little entropy at boot.
///
/// # Errors
/// getrandom(2) failed.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    // Bound: each round fills at least a byte, or is interrupted by a signal.
    while filled < N {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(got) => filled += got,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// A block of random bytes, each used once.
#[derive(Debug)]
pub struct Entropy {
    block: [u8; BLOCK],
    used: usize,
}

impl Entropy {
    /// Fetches the first block.
    ///
    /// # Errors
    /// The generator is unavailable.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            block: bytes()?,
            used: 0,
        })
    }

    /// 32 random bits, never given out before.
    pub fn next_u32(&mut self) -> u32 {
        if self.used + 4 > BLOCK {
            self.block = bytes().expect("a generator that has given bits goes on to");
            self.used = 0;
        }
        let bytes = &mut self.block[self.used..self.used + 4];
        let value = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        // Used bytes are erased.
        bytes.fill(0);
        self.used += 4;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_differ() {
        let once: [u8; 16] = bytes().expect("a generator");
        assert_ne!(once, bytes::<16>().expect("a generator"));
        assert_eq!(bytes::<0>().expect("nothing to do").len(), 0);
    }

    #[test]
    fn bits_differ_and_are_not_kept() {
        let mut entropy = Entropy::open().expect("a generator");
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            seen.insert(entropy.next_u32());
        }
        assert!(
            seen.len() > 990,
            "32-bit values do not repeat within a thousand"
        );
        assert!(entropy.block[..entropy.used].iter().all(|&byte| byte == 0));
    }
}
