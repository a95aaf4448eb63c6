//! The sk_lookup program for source ports: loaded once, attached to the network namespace of this process.

use std::os::fd::{AsFd as _, OwnedFd};

use super::object::Object;
use super::{Error, take};
use crate::os::bpf_array::MappedWords;
use crate::os::keeper::ObjectKind;
use aya::maps::{Map, MapData, SockMap};
use xdnsd_abi::ports;

/// The program. It ends with this process.
pub struct PortsProgram {
    /// Sockets that packets are delivered to.
    receivers: SockMap<MapData>,
    _link: OwnedFd,
    _object: Object,
}

impl PortsProgram {
    /// Loads and attaches the program. Gives its table as well, in which all ports are closed.
    ///
    /// # Errors
    /// The kernel lacks such programs (before Linux 5.17), or this process may not load them.
    pub fn start() -> Result<(Self, MappedWords), Error> {
        let mut object = Object::open(ObjectKind::Ports, None, 0)?;
        let Some(Map::Array(array)) = object.take_map(ports::TABLE) else {
            return Err(Error::Contract(ports::TABLE));
        };
        let words = MappedWords::map(array.fd().as_fd(), ports::SLOTS as usize + 1);
        let words = words.map_err(|cause| Error::Mmap {
            name: ports::TABLE,
            cause,
        })?;
        let receivers = take(&mut object, ports::RECEIVERS, SockMap::try_from)?;
        object.load(ports::PROGRAM)?;
        let program = Self {
            receivers,
            _link: object.attach_to_namespace(ports::PROGRAM)?,
            _object: object,
        };
        Ok((program, words))
    }

    /// Delivers to `socket` what its index of [`ports::receiver`] stands for.
    ///
    /// # Errors
    /// The map refused.
    pub fn receive_with(
        &mut self,
        index: u32,
        socket: &impl std::os::fd::AsRawFd,
    ) -> Result<(), Error> {
        let set = self.receivers.set(index, socket, 0);
        set.map_err(|cause| Error::map(ports::RECEIVERS, cause))
    }
}
