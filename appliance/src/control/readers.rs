//! Readers of the tap, the daemon's side: it takes the reader's memory in.

use super::socket::{Commands, TAP as REQUEST};
use crate::os::shared_memory::SharedMemory;
use crate::store::tap::Tap;
use crate::store::tap::entry::wanted;
use crate::store::tap::ring::{RINGS, RingLayout};

/// Version of the layout, which both sides write and read. Differs between incompatible releases.
const LAYOUT: usize = 1;

/// Request of a reader.
#[must_use]
pub fn request(wanted: u8, shape: RingLayout) -> String {
    let (slots, slot_bytes) = (shape.slots(), shape.slot_bytes());
    format!("{REQUEST}{LAYOUT} {RINGS} {wanted} {slots} {slot_bytes}")
}

/// Adds the request.
#[must_use]
pub fn with_readers(commands: Commands, tap: &'static Tap) -> Commands {
    commands.with_readers(move |words, guest| {
        let (wanted, shape) = asked_for(words)?;
        let memory = SharedMemory::take(&guest.memory, shape.bytes());
        let memory = memory.map_err(|error| error.to_string())?;
        tap.attach(memory, shape, wanted, guest.connection)
    })
}

fn asked_for(words: &[&str]) -> Result<(u8, RingLayout), String> {
    let numbers: Option<Vec<usize>> = words.iter().map(|word| word.parse().ok()).collect();
    let numbers = numbers.unwrap_or_default();
    match *numbers {
        [LAYOUT, RINGS, kinds, slots, slot_bytes] => {
            let kinds = u8::try_from(kinds).ok();
            let kinds = kinds.filter(|kinds| *kinds != 0 && kinds & !wanted::ALL == 0);
            let shape = RingLayout::new(slots, slot_bytes);
            kinds
                .zip(shape)
                .ok_or_else(|| "no such thing can be read".to_owned())
        }
        _ => Err("the reader is of another release than the daemon".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_understood_and_another_ones_is_refused() {
        let words = request(wanted::ALL, RingLayout::MESSAGES);
        let words: Vec<&str> = words.split(' ').skip(1).collect();
        assert_eq!(asked_for(&words), Ok((wanted::ALL, RingLayout::MESSAGES)));
        for (index, word, problem) in [
            (0, "2", "another release"),
            (1, "99", "another release"),
            (2, "0", "no such thing"),
            (2, "8", "no such thing"),
            (3, "7", "no such thing"),
            (4, "x", "another release"),
        ] {
            let mut words = words.clone();
            words[index] = word;
            let refused = asked_for(&words).expect_err(word);
            assert!(refused.contains(problem), "{words:?}: {refused}");
        }
    }
}
