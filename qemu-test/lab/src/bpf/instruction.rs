//! The few instructions of BPF that our programs have (RFC 9669).

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
/// Survives calls.
pub const R6: Register = Register(6);

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

    /// `dst = the map of that descriptor`, in two slots.
    #[must_use]
    pub const fn set_map(dst: Register, descriptor: i32) -> [Self; 2] {
        const PSEUDO_MAP_FD: Register = Register(1);
        [
            Self::new(0x18, dst, PSEUDO_MAP_FD, 0, descriptor),
            Self::new(0, R0, R0, 0, 0),
        ]
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
    }
}
