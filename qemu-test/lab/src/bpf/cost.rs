//! Run time of a program, in nanoseconds, without the driver around it.
//!
//! BPF_PROG_TEST_RUN repeats a run on one frame, which keeps what the program wrote: after the first run it holds an answer
//! instead of a query. So a front program restores the frame and tail-calls the measured one; its own time, measured with an
//! empty program behind it, is subtracted.

use std::io;

use super::assembler::Assembler;
use super::instruction::{Instruction, R0, R1, R2, R3, R6, R7};
use super::maps::Slot;
use super::{DATA, DATA_END, Program, XDP_DROP};

/// Runs of one measurement: some hundredths of a second.
const RUNS: u32 = 200_000;
/// Measurements. The minimum counts, since disturbances only add time.
const TRIES: usize = 7;
const HELPER_TAIL_CALL: i32 = 12;
const HELPER_ADJUST_HEAD: i32 = 44;
const HELPER_ADJUST_TAIL: i32 = 65;

/// End at which a program makes the frame longer or shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grows {
    /// At its head.
    Head,
    /// At its end, or not at all.
    Tail,
}

/// Result of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Run time in nanoseconds.
    pub nanos: u32,
    /// Returned action, such as [`super::XDP_TX`].
    pub verdict: i32,
}

/// Run time of `program` for `frame`, received on `ifindex` of the calling thread's network namespace.
///
/// # Errors
/// The kernel refused: the program does not take multi-buffer frames, or there is no such device.
pub fn measure(program: &Program, frame: &[u8], ifindex: u32, grows: Grows) -> io::Result<Cost> {
    let slot = Slot::new()?;
    let front = Program::load_frags(&front(frame, grows, slot.descriptor()))?;
    let least = |behind: &Program| {
        slot.set(behind)?;
        let mut least = (u32::MAX, 0);
        for _ in 0..TRIES {
            least = least.min(front.run_timed(frame, ifindex, RUNS)?);
        }
        Ok::<_, io::Error>(least)
    };
    let (empty, _) = least(&Program::verdict(XDP_DROP)?)?;
    let (nanos, verdict) = least(program)?;
    Ok(Cost {
        nanos: nanos.saturating_sub(empty),
        verdict,
    })
}

/// The front program: restores the frame's length and bytes, and tail-calls the program in the slot.
fn front(frame: &[u8], grows: Grows, slot: i32) -> Vec<Instruction> {
    let len = frame.len() as i32;
    let mut code = Assembler::new();
    let (right, give_up) = (code.label(), code.label());
    code.push(&[
        Instruction::copy(R6, R1),
        Instruction::load_u32(R2, R6, DATA_END),
        Instruction::load_u32(R3, R6, DATA),
        Instruction::subtract(R2, R3),
    ]);
    code.jump(Instruction::skip_if_equal(R2, len, 0), right);
    match grows {
        // Forward by the excess.
        Grows::Head => code.push(&[
            Instruction::add(R2, -len),
            Instruction::copy(R1, R6),
            Instruction::call(HELPER_ADJUST_HEAD),
        ]),
        // By the bytes that are missing.
        Grows::Tail => code.push(&[
            Instruction::set(R3, len),
            Instruction::subtract(R3, R2),
            Instruction::copy(R2, R3),
            Instruction::copy(R1, R6),
            Instruction::call(HELPER_ADJUST_TAIL),
        ]),
    }
    code.place(right);
    code.push(&[
        Instruction::load_u32(R7, R6, DATA),
        Instruction::load_u32(R1, R6, DATA_END),
        Instruction::copy(R2, R7),
        Instruction::add(R2, len),
    ]);
    code.jump(Instruction::skip_if_greater(R2, R1, 0), give_up);
    code.push(&Instruction::store_bytes(R7, 0, frame));
    code.push(&[Instruction::copy(R1, R6)]);
    code.push(&Instruction::set_map(R2, slot));
    code.push(&[Instruction::set(R3, 0), Instruction::call(HELPER_TAIL_CALL)]);
    code.place(give_up);
    code.push(&[Instruction::set(R0, 0), Instruction::exit()]);
    code.finish()
}
