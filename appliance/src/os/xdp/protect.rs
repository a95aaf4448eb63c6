//! The shield for hosts behind this one: the program for segments to them, and its settings.

use super::object::Object;
use super::{Error, Program, take};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use xdnsd_abi::hash::HashKey;
use xdnsd_abi::{Behind, PROTECTED_MAX, Protected, map, secret, shield, tail};

use crate::os::random;

type BehindBytes = [u8; size_of::<Behind>()];
type ProtectedBytes = [u8; size_of::<Protected>()];

/// Map of protected addresses, and the program's state.
pub(super) struct Protect {
    protected: LpmTrie<MapData, BehindBytes, ProtectedBytes>,
    /// Current key of cookies.
    key: HashKey,
    pub(super) is_loaded: bool,
}

impl Protect {
    pub(super) fn of(object: &mut Object) -> Result<Self, Error> {
        Ok(Self {
            protected: take(object, map::PROTECTED, LpmTrie::try_from)?,
            key: HashKey::default(),
            is_loaded: false,
        })
    }
}

/// A prefix with a port; the first field is the number of key bits that count.
pub type ProtectedPrefix = (u32, Behind, Protected);

impl Program {
    /// Has the program see segments to protected addresses from here on, and answer SYNs as [`Self::set_protecting`] says.
    ///
    /// # Errors
    ///
    /// The kernel refused the program (before Linux 5.18), or the program does not take multi-buffer frames.
    pub fn protect(&mut self) -> Result<(), Error> {
        if self.protect.is_loaded {
            return Ok(());
        }
        self.prepare_shield()?;
        // Twice, so that the previous key is random, too.
        self.change_cookie_key()?;
        self.change_cookie_key()?;
        self.load_shield(map::PROGRAM_FORWARD)?;
        self.protect.is_loaded = true;
        self.hand_on(tail::FORWARD, map::PROGRAM_FORWARD)?;
        self.arrange_shield()
    }

    /// Makes cookies with a new key from here on. Cookies of the previous key stay valid, older ones expire.
    ///
    /// # Errors
    ///
    /// No randomness, or the map refused.
    pub fn change_cookie_key(&mut self) -> Result<(), Error> {
        let key = random::bytes().map_err(Error::Random)?;
        let before = std::mem::replace(&mut self.protect.key, key);
        self.set_secret(secret::COOKIE_BEFORE, before)?;
        self.set_secret(secret::COOKIE, key)
    }

    /// Sets the treatment of SYNs to protected addresses, see [`xdnsd_abi::protect`].
    ///
    /// # Errors
    ///
    /// The map refused.
    pub fn set_protecting(&mut self, word: u32) -> Result<(), Error> {
        self.tell(shield::PROTECT, word)
    }

    /// Makes the map of protected addresses equal to `wanted`: adds, changes and removes. Entries that stay are present
    /// throughout.
    ///
    /// # Errors
    ///
    /// More than [`PROTECTED_MAX`] entries, or the map refused.
    pub fn set_protected(&mut self, wanted: &[ProtectedPrefix]) -> Result<(), Error> {
        Error::check_room(map::PROTECTED, wanted.len(), PROTECTED_MAX)?;
        self.replace_protected(wanted)
            .map_err(|cause| Error::map(map::PROTECTED, cause))
    }

    fn replace_protected(&mut self, wanted: &[ProtectedPrefix]) -> Result<(), MapError> {
        let map = &mut self.protect.protected;
        let present: Result<Vec<Key<BehindBytes>>, MapError> = map.keys().collect();
        let is_wanted = |key: &Key<BehindBytes>| {
            let mut wanted = wanted.iter();
            wanted.any(|(bits, behind, _)| {
                (*bits, behind.to_bytes()) == (key.prefix_len(), key.data())
            })
        };
        for key in present?.iter().filter(|key| !is_wanted(key)) {
            map.remove(key)?;
        }
        for (bits, behind, protected) in wanted {
            map.insert(&Key::new(*bits, behind.to_bytes()), protected.to_bytes(), 0)?;
        }
        Ok(())
    }
}
