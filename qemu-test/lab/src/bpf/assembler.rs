//! Assembler with labels, which computes the distances of jumps.

use super::instruction::Instruction;

/// Target of jumps.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

/// A program under construction.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<Instruction>,
    /// Index of each label's instruction, once placed.
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// An empty program.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new label, to be placed further down.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Appends instructions.
    pub fn push(&mut self, instructions: &[Instruction]) {
        self.code.extend(instructions);
    }

    /// Appends the instruction `skip`, with a jump to `to`.
    pub fn jump(&mut self, skip: Instruction, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.code.push(skip);
    }

    /// Places the label before the next instruction.
    pub fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// The finished program.
    ///
    /// # Panics
    /// A label was never placed, or is too far from its jump.
    #[must_use]
    pub fn finish(mut self) -> Vec<Instruction> {
        for (from, Label(label)) in self.jumps {
            let to = self.labels[label].expect("every label is placed");
            let distance = i16::try_from(to - from - 1).expect("programs here are short");
            self.code[from] = self.code[from].skipping(distance);
        }
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::super::instruction::{Instruction, R0};
    use super::Assembler;

    #[test]
    fn a_jump_skips_what_stands_between() {
        let mut code = Assembler::new();
        let end = code.label();
        code.jump(Instruction::skip_if_equal(R0, 1, 0), end);
        code.push(&[Instruction::set(R0, 2), Instruction::set(R0, 3)]);
        code.place(end);
        code.push(&[Instruction::exit()]);
        let finished = code.finish();
        assert_eq!(finished[0], Instruction::skip_if_equal(R0, 1, 2));
        assert_eq!(finished[3], Instruction::exit());
    }
}
