//! Internationalized names in lists, in the form that DNS has (RFC 3492, RFC 5890).
//!
//! Letters are only converted to lower case: text that would have to be composed first (RFC 5891 section 5.3) is refused.

use std::fmt::Write;

const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;
const FIRST_BIAS: u32 = 72;
const FIRST_CODE: u32 = 0x80;

/// Converts each label that is not ASCII to its `xn--` form. `None` if there are characters other than letters and digits.
#[must_use]
pub fn to_ascii(text: &str) -> Option<String> {
    let mut ascii = String::with_capacity(text.len() + 8);
    for (index, label) in text.split('.').enumerate() {
        if index > 0 {
            ascii.push('.');
        }
        if label.is_ascii() {
            ascii.push_str(label);
            continue;
        }
        let label = label.to_lowercase();
        let is_ours = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_');
        if !label.chars().all(is_ours) {
            return None;
        }
        write!(ascii, "xn--{}", encode(&label)?).ok()?;
    }
    Some(ascii)
}

/// RFC 3492 section 6.3. `None` on overflow, which labels that fit DNS stay far below.
fn encode(label: &str) -> Option<String> {
    let mut encoded: String = label.chars().filter(char::is_ascii).collect();
    let basic = encoded.len() as u32;
    if basic > 0 {
        encoded.push('-');
    }
    let (mut code, mut delta, mut bias, mut handled) = (FIRST_CODE, 0u32, FIRST_BIAS, basic);
    let count = label.chars().count() as u32;
    while handled < count {
        let codes = label.chars().map(u32::from);
        let next = codes.filter(|&letter| letter >= code).min()?;
        delta = (next - code)
            .checked_mul(handled + 1)
            .and_then(|step| delta.checked_add(step))?;
        code = next;
        for letter in label.chars().map(u32::from) {
            if letter < code {
                delta = delta.checked_add(1)?;
            }
            if letter == code {
                put_delta(&mut encoded, delta, bias);
                bias = adapted(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        delta = delta.checked_add(1)?;
        code += 1;
    }
    Some(encoded)
}

/// Appends a variable-length integer with the thresholds for `bias`.
fn put_delta(encoded: &mut String, delta: u32, bias: u32) {
    let mut rest = delta;
    let mut position = BASE;
    // Bounded: every round makes `rest` smaller.
    loop {
        let threshold = position.saturating_sub(bias).clamp(T_MIN, T_MAX);
        if rest < threshold {
            encoded.push(digit(rest));
            return;
        }
        encoded.push(digit(threshold + (rest - threshold) % (BASE - threshold)));
        rest = (rest - threshold) / (BASE - threshold);
        position += BASE;
    }
}

/// `a` to `z`, then `0` to `9`.
fn digit(value: u32) -> char {
    let value = value as u8;
    char::from(if value < 26 {
        b'a' + value
    } else {
        b'0' + (value - 26)
    })
}

/// RFC 3492 section 6.1.
fn adapted(delta: u32, count: u32, is_first: bool) -> u32 {
    let mut delta = delta / if is_first { DAMP } else { 2 };
    delta += delta / count;
    let mut bias = 0;
    while delta > (BASE - T_MIN) * T_MAX / 2 {
        delta /= BASE - T_MIN;
        bias += BASE;
    }
    bias + (BASE - T_MIN + 1) * delta / (delta + SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_ascii_have_a_form_within() {
        for (text, ascii) in [
            ("bücher.example", "xn--bcher-kva.example"),
            ("MÜNCHEN.Example", "xn--mnchen-3ya.Example"),
            ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
            // RFC 3492 section 7.1: (B), (L) and (S) without its characters that are not letters.
            ("他们为什么不说中文", "xn--ihqwcrb4cv8a8dqg056pqjye"),
            ("3年b組金八先生", "xn--3b-ww4c5e180e575a65lsy2b"),
            ("パフィーdeルンバ", "xn--de-jg4avhby1noc0d"),
            ("plain.example.", "plain.example."),
        ] {
            assert_eq!(to_ascii(text).as_deref(), Some(ascii), "{text}");
        }
        for text in ["m\u{fffd}", "u\u{308}", "a b\u{e9}", "\u{201c}x\u{201d}"] {
            assert_eq!(to_ascii(text), None, "{text}");
        }
    }
}
