//! Random bits from the operating system's generator, fetched in blocks so that a question costs no system call.

use std::fs::File;
use std::io::{self, Read};

/// Bytes fetched at once.
const BLOCK: usize = 256;

/// A block of random bits and the source of the next one.
#[derive(Debug)]
pub struct Entropy {
    source: File,
    block: [u8; BLOCK],
    used: usize,
}

impl Entropy {
    /// Opens the generator and fetches the first block.
    ///
    /// # Errors
    /// There is no generator.
    pub fn open() -> io::Result<Self> {
        let mut source = File::open("/dev/urandom")?;
        let mut block = [0; BLOCK];
        source.read_exact(&mut block)?;
        Ok(Self {
            source,
            block,
            used: 0,
        })
    }

    /// 32 random bits. Each is given out once.
    pub fn next_u32(&mut self) -> u32 {
        if self.used + 4 > BLOCK {
            self.source
                .read_exact(&mut self.block)
                .expect("the kernel's generator, once open, never fails");
            self.used = 0;
        }
        let bytes = &mut self.block[self.used..self.used + 4];
        let value = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        // What was given out is not kept.
        bytes.fill(0);
        self.used += 4;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
