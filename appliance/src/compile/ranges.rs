//! Prefixes as disjoint ranges, which `xdnsd_core::policy::ranges` reads.

use std::net::IpAddr;

use super::prefix::Prefix;

/// Range of addresses, from first to last, as numbers.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    first: u128,
    last: u128,
}

impl Span {
    /// Range of a prefix.
    #[must_use]
    pub fn of(prefix: &Prefix) -> Self {
        let (first, host_bits) = match prefix.address() {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32 - prefix.length()),
            IpAddr::V6(address) => (address.to_bits(), 128 - prefix.length()),
        };
        let size = 1u128.checked_shl(host_bits.into());
        let last = first | size.map_or(u128::MAX, |size| size - 1);
        Self { first, last }
    }
}

/// Ranges of one address family with their values, ascending and without gaps.
pub type Cut<T> = Vec<(Span, T)>;

/// Image of both families. All addresses begin with `value`; `cut` lays prefixes of one family over it, of IPv4 if its argument is
/// true.
#[must_use]
pub fn compile<T: Copy + PartialEq>(
    value: T,
    cut: impl Fn(Cut<T>, bool) -> Cut<T>,
    byte: impl Fn(T) -> u8,
) -> Vec<u8> {
    let family = |is_ipv4, last| {
        let whole = vec![(Span { first: 0, last }, value)];
        starts(cut(whole, is_ipv4))
    };
    let v4 = family(true, u128::from(u32::MAX));
    let v6 = family(false, u128::MAX);
    image(&v4, &v6, byte)
}

/// Changes the values of all ranges within a span by `value`, splitting ranges at its ends.
#[must_use]
pub fn lay<T: Copy>(cut: Cut<T>, span: Span, value: impl Fn(T) -> T) -> Cut<T> {
    let cover = |(range, was): (Span, T)| {
        let part = |first: u128, last: u128, value: T| {
            (first <= last).then_some((Span { first, last }, value))
        };
        let (from, to) = (range.first.max(span.first), range.last.min(span.last));
        let parts = if from > to {
            [Some((range, was)), None, None]
        } else {
            let before = from.checked_sub(1);
            let behind = to.checked_add(1);
            [
                before.and_then(|before| part(range.first, before, was)),
                part(from, to, value(was)),
                behind.and_then(|behind| part(behind, range.last, was)),
            ]
        };
        parts.into_iter().flatten()
    };
    cut.into_iter().flat_map(cover).collect()
}

/// Starts of the ranges, with neighbours of the same value merged.
fn starts<T: Copy + PartialEq>(mut cut: Cut<T>) -> Vec<(u128, T)> {
    cut.dedup_by(|next, kept| next.1 == kept.1);
    let starts = cut.into_iter().map(|(range, value)| (range.first, value));
    starts.collect()
}

/// Prefixes of one family, in the same order.
pub fn of_family(prefixes: &[Prefix], is_ipv4: bool) -> impl Iterator<Item = &Prefix> {
    let is_meant = move |prefix: &&Prefix| prefix.address().is_ipv4() == is_ipv4;
    prefixes.iter().filter(is_meant)
}

/// Prefixes of one family, the shorter before the longer.
pub fn sorted<T: Copy>(
    rules: &[(Prefix, T)],
    is_ipv4: bool,
) -> impl Iterator<Item = (Prefix, T)> + use<T> {
    let of_family = rules
        .iter()
        .filter(|(prefix, _)| prefix.address().is_ipv4() == is_ipv4);
    let mut of_family: Vec<_> = of_family.copied().collect();
    of_family.sort_by_key(|(prefix, _)| prefix.length());
    of_family.into_iter()
}

/// Image of the starts of both families.
fn image<T: Copy>(v4: &[(u128, T)], v6: &[(u128, T)], byte: impl Fn(T) -> u8) -> Vec<u8> {
    let mut image = Vec::new();
    image.extend((v4.len() as u32).to_le_bytes());
    image.extend((v6.len() as u32).to_le_bytes());
    v4.iter()
        .for_each(|(start, _)| image.extend((*start as u32).to_le_bytes()));
    image.extend(v4.iter().map(|(_, value)| byte(*value)));
    v6.iter()
        .for_each(|(start, _)| image.extend(start.to_le_bytes()));
    image.extend(v6.iter().map(|(_, value)| byte(*value)));
    image
}
