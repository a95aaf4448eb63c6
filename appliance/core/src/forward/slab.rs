//! A table of fixed capacity with entries by index.

use heapless::Vec;

/// When full, `insert` returns the value. An index belongs to its entry until `remove`, then to the next one stored there.
#[derive(Debug)]
pub struct Slab<T, const N: usize> {
    slots: Vec<Option<T>, N>,
    free: Vec<u16, N>,
}

impl<T, const N: usize> Slab<T, N> {
    const INDEX_FITS: () = assert!(
        N <= u16::MAX as usize,
        "XDNSD_LIMIT_PENDING or XDNSD_LIMIT_WAITERS or another table's capacity is over 65535"
    );

    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        let () = Self::INDEX_FITS;
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Stores `value` and returns its index.
    ///
    /// # Errors
    /// The value, if the table is full.
    pub fn insert(&mut self, value: T) -> Result<u16, T> {
        if let Some(index) = self.free.pop() {
            self.slots[usize::from(index)] = Some(value);
            return Ok(index);
        }
        match self.slots.push(Some(value)) {
            Ok(()) => Ok((self.slots.len() - 1) as u16),
            Err(value) => value.map_or_else(|| unreachable!("the value was there"), Err),
        }
    }

    /// Removes the entry at `index` and returns it.
    pub fn remove(&mut self, index: u16) -> Option<T> {
        let value = self.slots.get_mut(usize::from(index))?.take()?;
        // Has room: there are never more free indices than slots.
        let _ = self.free.push(index);
        Some(value)
    }

    /// The entry at `index`.
    #[must_use]
    pub fn get(&self, index: u16) -> Option<&T> {
        self.slots.get(usize::from(index))?.as_ref()
    }

    /// The entry at `index`, for changes.
    #[must_use]
    pub fn get_mut(&mut self, index: u16) -> Option<&mut T> {
        self.slots.get_mut(usize::from(index))?.as_mut()
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// True if there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if `insert` would return its value.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() == N
    }

    /// All entries with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &T)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| Some((index as u16, slot.as_ref()?)))
    }
}

impl<T, const N: usize> Default for Slab<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_gives_the_value_back_and_indices_are_used_again() {
        let mut slab: Slab<u32, 2> = Slab::new();
        assert_eq!(
            (slab.insert(1), slab.insert(2), slab.insert(3)),
            (Ok(0), Ok(1), Err(3))
        );
        assert!(slab.is_full());
        assert_eq!(
            (slab.remove(0), slab.remove(0), slab.get(0)),
            (Some(1), None, None)
        );
        assert_eq!(slab.insert(4), Ok(0));
        assert!(slab.iter().eq([(0, &4), (1, &2)]));
        assert_eq!(slab.len(), 2);
    }
}
