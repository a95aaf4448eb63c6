//! The BPF instructions that our programs use (RFC 9669).

/// A register. R1 to R5 carry arguments and do not survive a call, R6 to R9 do, R0 is the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u8);

/// Result of a call and of the program.
pub const R0: Register = Register(0);
/// The context at the start; first argument.
pub const R1: Register = Register(1);
/// Second argument.
pub const R2: Register = Register(2);
/// Third argument.
pub const R3: Register = Register(3);
/// Fourth argument.
pub const R4: Register = Register(4);
/// Fifth argument.
pub const R5: Register = Register(5);
/// Survives calls.
pub const R6: Register = Register(6);
/// Survives calls.
pub const R7: Register = Register(7);
/// Survives calls.
pub const R8: Register = Register(8);
/// Survives calls.
pub const R9: Register = Register(9);
/// Frame pointer: words on the stack have negative offsets.
pub const R10: Register = Register(10);

/// One slot of 64 bits, as in memory on a little-endian machine.
///
/// ```text
///  | opcode 8 | dst 4 | src 4 | offset 16 | immediate 32 |
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction(u64);

impl Instruction {
    /// `dst = immediate`.
    #[must_use]
    pub const fn set(dst: Register, immediate: i32) -> Self {
        Self::new(0xb7, dst, R0, 0, immediate)
    }

    /// `dst = src`.
    #[must_use]
    pub const fn copy(dst: Register, src: Register) -> Self {
        Self::new(0xbf, dst, src, 0, 0)
    }

    /// `dst += immediate`.
    #[must_use]
    pub const fn add(dst: Register, immediate: i32) -> Self {
        Self::new(0x07, dst, R0, 0, immediate)
    }

    /// `dst += src`.
    #[must_use]
    pub const fn add_register(dst: Register, src: Register) -> Self {
        Self::new(0x0f, dst, src, 0, 0)
    }

    /// `dst -= src`.
    #[must_use]
    pub const fn subtract(dst: Register, src: Register) -> Self {
        Self::new(0x1f, dst, src, 0, 0)
    }

    /// `dst &= immediate`.
    #[must_use]
    pub const fn and(dst: Register, immediate: i32) -> Self {
        Self::new(0x57, dst, R0, 0, immediate)
    }

    /// `dst ^= immediate`.
    #[must_use]
    pub const fn xor(dst: Register, immediate: i32) -> Self {
        Self::new(0xa7, dst, R0, 0, immediate)
    }

    /// `dst >>= immediate`.
    #[must_use]
    pub const fn shift_right(dst: Register, immediate: i32) -> Self {
        Self::new(0x77, dst, R0, 0, immediate)
    }

    /// `dst <<= immediate`.
    #[must_use]
    pub const fn shift_left(dst: Register, immediate: i32) -> Self {
        Self::new(0x67, dst, R0, 0, immediate)
    }

    /// Converts the lowest 16 bits of `dst` between native and network order; the others become 0.
    #[must_use]
    pub const fn network_order_16(dst: Register) -> Self {
        Self::new(0xdc, dst, R0, 0, 16)
    }

    /// `dst = *(u8 *)(src + offset)`.
    #[must_use]
    pub const fn load_u8(dst: Register, src: Register, offset: i16) -> Self {
        Self::new(0x71, dst, src, offset, 0)
    }

    /// `dst = *(u16 *)(src + offset)`.
    #[must_use]
    pub const fn load_u16(dst: Register, src: Register, offset: i16) -> Self {
        Self::new(0x69, dst, src, offset, 0)
    }

    /// `dst = *(u64 *)(src + offset)`.
    #[must_use]
    pub const fn load_u64(dst: Register, src: Register, offset: i16) -> Self {
        Self::new(0x79, dst, src, offset, 0)
    }

    /// `*(u32 *)(dst + offset) = src`.
    #[must_use]
    pub const fn store_u32(dst: Register, offset: i16, src: Register) -> Self {
        Self::new(0x63, dst, src, offset, 0)
    }

    /// `*(u64 *)(dst + offset) = src`.
    #[must_use]
    pub const fn store_u64(dst: Register, offset: i16, src: Register) -> Self {
        Self::new(0x7b, dst, src, offset, 0)
    }

    /// Writes `bytes` at `dst + offset`.
    #[must_use]
    pub fn store_bytes(dst: Register, offset: i16, bytes: &[u8]) -> Vec<Self> {
        let mut code = Vec::new();
        let mut at = offset;
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            code.push(Self::new(0x62, dst, R0, at, i32::from_le_bytes(*word)));
            at += 4;
        }
        for byte in rest {
            code.push(Self::new(0x72, dst, R0, at, (*byte).into()));
            at += 1;
        }
        code
    }

    /// `dst = *(u32 *)(src + offset)`.
    #[must_use]
    pub const fn load_u32(dst: Register, src: Register, offset: i16) -> Self {
        Self::new(0x61, dst, src, offset, 0)
    }

    /// `*(u8 *)(dst + offset) = src`.
    #[must_use]
    pub const fn store_u8(dst: Register, offset: i16, src: Register) -> Self {
        Self::new(0x73, dst, src, offset, 0)
    }

    /// `*(u16 *)(dst + offset) = src`.
    #[must_use]
    pub const fn store_u16(dst: Register, offset: i16, src: Register) -> Self {
        Self::new(0x6b, dst, src, offset, 0)
    }

    /// Skips `count` instructions if `dst > src`.
    #[must_use]
    pub const fn skip_if_greater(dst: Register, src: Register, count: i16) -> Self {
        Self::new(0x2d, dst, src, count, 0)
    }

    /// Skips `count` instructions if `dst` is at most `immediate`, both unsigned.
    #[must_use]
    pub const fn skip_if_at_most(dst: Register, immediate: i32, count: i16) -> Self {
        Self::new(0xb5, dst, R0, count, immediate)
    }

    /// Skips `count` instructions if `dst == immediate`.
    #[must_use]
    pub const fn skip_if_equal(dst: Register, immediate: i32, count: i16) -> Self {
        Self::new(0x15, dst, R0, count, immediate)
    }

    /// Skips `count` instructions if `dst != immediate`.
    #[must_use]
    pub const fn skip_if_other(dst: Register, immediate: i32, count: i16) -> Self {
        Self::new(0x55, dst, R0, count, immediate)
    }

    /// `R0 = helper(R1, ...)`.
    #[must_use]
    pub const fn call(helper: i32) -> Self {
        Self::new(0x85, R0, R0, 0, helper)
    }

    /// Ends the program with R0.
    #[must_use]
    pub const fn exit() -> Self {
        Self::new(0x95, R0, R0, 0, 0)
    }

    /// `dst` = the map with this descriptor, in two slots.
    #[must_use]
    pub const fn set_map(dst: Register, descriptor: i32) -> [Self; 2] {
        const PSEUDO_MAP_FD: Register = Register(1);
        [
            Self::new(0x18, dst, PSEUDO_MAP_FD, 0, descriptor),
            Self::new(0, R0, R0, 0, 0),
        ]
    }

    /// `dst` = the address of byte `offset` of the only value of the array with this descriptor, in two slots.
    #[must_use]
    pub const fn set_map_value(dst: Register, descriptor: i32, offset: i32) -> [Self; 2] {
        const PSEUDO_MAP_VALUE: Register = Register(2);
        [
            Self::new(0x18, dst, PSEUDO_MAP_VALUE, 0, descriptor),
            Self::new(0, R0, R0, 0, offset),
        ]
    }

    /// The instruction with another distance to skip.
    pub(super) const fn skipping(self, count: i16) -> Self {
        const OFFSET: u64 = 0xffff << 16;
        Self(self.0 & !OFFSET | (count as u16 as u64) << 16)
    }

    const fn new(opcode: u8, dst: Register, src: Register, offset: i16, immediate: i32) -> Self {
        Self(
            opcode as u64
                | (dst.0 as u64) << 8
                | (src.0 as u64) << 12
                | (offset as u16 as u64) << 16
                | (immediate as u32 as u64) << 32,
        )
    }
}

const _: () = assert!(
    cfg!(target_endian = "little"),
    "instructions are laid out for a little-endian machine"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_laid_out_as_the_kernel_reads_them() {
        // r2 = *(u32 *)(r1 + 16): opcode, registers, offset, immediate, each little-endian.
        let load = Instruction::load_u32(R2, R1, 16);
        assert_eq!(load.0.to_le_bytes(), [0x61, 0x12, 16, 0, 0, 0, 0, 0]);
        let set = Instruction::set(R3, -2);
        assert_eq!(set.0.to_le_bytes(), [0xb7, 3, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
        let skip = Instruction::skip_if_at_most(R7, 9, 5).skipping(-2);
        assert_eq!(skip.0.to_le_bytes(), [0xb5, 7, 0xfe, 0xff, 9, 0, 0, 0]);
    }

    #[test]
    fn bytes_are_written_as_words_and_what_is_left() {
        let code = Instruction::store_bytes(R6, 8, &[1, 2, 3, 4, 0xff]);
        let bytes: Vec<_> = code.iter().map(|slot| slot.0.to_le_bytes()).collect();
        let word = [0x62, 6, 8, 0, 1, 2, 3, 4];
        assert_eq!(bytes, [word, [0x72, 6, 12, 0, 0xff, 0, 0, 0]]);
    }
}
