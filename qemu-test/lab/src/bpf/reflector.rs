//! Reflectors: programs that only swap a frame's addresses and send it back, the upper bound of answers in the kernel.

use super::assembler::{Assembler, Label};
use super::instruction::{Instruction, R0, R1, R2, R3, R4, R5, R6, R7};
use super::{DATA, DATA_END, XDP_PASS, XDP_TX};

const HELPER_ADJUST_HEAD: i32 = 44;
const ETHERTYPE: i16 = 12;
const IPV4: i32 = u16::from_ne_bytes([0x08, 0x00]) as i32;
/// End of the ports.
const ADDRESSES_END: i32 = 38;

/// Swaps the addresses and sends the frame back.
pub(super) fn code() -> Vec<Instruction> {
    let mut code = Assembler::new();
    let pass = code.label();
    begin(&mut code, ADDRESSES_END, pass);
    finish(code, pass)
}

/// Moves the frame's `len` bytes to its new head, by the length of `answer`, writes `answer` after them, and reflects the frame.
pub(super) fn growing_code(len: usize, answer: &[u8]) -> Vec<Instruction> {
    const WORD: usize = size_of::<u64>();
    let (more, all) = (answer.len() as i16, (len + answer.len()) as i32);
    let mut code = Assembler::new();
    let pass = code.label();
    code.push(&[Instruction::copy(R7, R1)]);
    begin(&mut code, len as i32, pass);
    code.push(&[
        Instruction::copy(R1, R7),
        Instruction::set(R2, -i32::from(more)),
        Instruction::call(HELPER_ADJUST_HEAD),
    ]);
    code.jump(Instruction::skip_if_other(R0, 0, 0), pass);
    code.push(&[Instruction::copy(R1, R7)]);
    bounds(&mut code, all, pass);
    for at in (0..len.next_multiple_of(WORD)).step_by(WORD) {
        // The last word ends with the frame.
        let at = at.min(len - WORD) as i16;
        code.push(&[
            Instruction::load_u64(R1, R6, at + more),
            Instruction::store_u64(R6, at, R1),
        ]);
    }
    code.push(&Instruction::store_bytes(R6, len as i16, answer));
    finish(code, pass)
}

/// Sets R6 to the frame of the context in R1; jumps to `pass` if the frame is shorter than `len`, or not IPv4.
fn begin(code: &mut Assembler, len: i32, pass: Label) {
    bounds(code, len, pass);
    code.push(&[Instruction::load_u16(R2, R6, ETHERTYPE)]);
    code.jump(Instruction::skip_if_other(R2, IPV4, 0), pass);
}

fn bounds(code: &mut Assembler, len: i32, pass: Label) {
    code.push(&[
        Instruction::load_u32(R6, R1, DATA),
        Instruction::load_u32(R1, R1, DATA_END),
        Instruction::copy(R2, R6),
        Instruction::add(R2, len),
    ]);
    code.jump(Instruction::skip_if_greater(R2, R1, 0), pass);
}

/// Swaps MAC addresses, IPv4 addresses and ports of the frame at R6, and ends.
fn finish(mut code: Assembler, pass: Label) -> Vec<Instruction> {
    const SWAPPED: [(i16, i16); 2] = [(26, 30), (34, 36)];
    code.push(&[
        Instruction::load_u32(R2, R6, 0),
        Instruction::load_u16(R3, R6, 4),
        Instruction::load_u32(R4, R6, 6),
        Instruction::load_u16(R5, R6, 10),
        Instruction::store_u32(R6, 6, R2),
        Instruction::store_u16(R6, 10, R3),
        Instruction::store_u32(R6, 0, R4),
        Instruction::store_u16(R6, 4, R5),
    ]);
    let [(from, to), (from_port, to_port)] = SWAPPED;
    code.push(&[
        Instruction::load_u32(R2, R6, from),
        Instruction::load_u32(R3, R6, to),
        Instruction::load_u16(R4, R6, from_port),
        Instruction::load_u16(R5, R6, to_port),
        Instruction::store_u32(R6, to, R2),
        Instruction::store_u32(R6, from, R3),
        Instruction::store_u16(R6, to_port, R4),
        Instruction::store_u16(R6, from_port, R5),
        Instruction::set(R0, XDP_TX),
        Instruction::exit(),
    ]);
    code.place(pass);
    code.push(&[Instruction::set(R0, XDP_PASS), Instruction::exit()]);
    code.finish()
}
