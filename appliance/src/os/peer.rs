//! Whether the other end of a veth pair receives frames that an XDP program sends back (rtnetlink(7)).
//!
//! veth hands such a frame to the other end's receive ring, and only an XDP program there has the ring read at once. With GRO
//! alone, the frame stays in the ring until another event, although counted as sent: no counter of this end shows it. So the
//! other end itself is inspected, in whichever network namespace it is.

use nix::errno::Errno;
use std::os::fd::OwnedFd;

use super::device;
use super::keeper::{self, InterfaceName, Request};
use super::netlink::{
    self, DEVICE_LEN, HEADER_LEN, NLM_F_REQUEST, NLMSG_ERROR, ROOM, RTM_NEWLINK, attribute,
    error_of, get_link, route_socket, u16_at, u32_at, with,
};

/// linux/if_link.h: attributes of a device: index of the other end, its namespace, its XDP programs.
const IFLA_LINK: u16 = 5;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
/// In a request: namespace of the device (Linux 4.15).
const IFLA_TARGET_NETNSID: u16 = 46;
/// Inside IFLA_XDP: the program in the driver.
const IFLA_XDP_DRV_PROG_ID: u16 = 5;

/// True if the other end of this veth device has an XDP program in its driver.
///
/// # Errors
/// It cannot be queried: it is in an inaccessible namespace, or gone.
pub fn takes_frames(interface: &str) -> nix::Result<bool> {
    if keeper::is_there() {
        let name = InterfaceName::new(interface).ok_or(Errno::ENODEV)?;
        let asked = keeper::ask(Request::TakesFrames(name), None);
        return asked
            .map(|granted| granted.value == 1)
            .map_err(|refusal| refusal.errno);
    }
    let socket = route_socket()?;
    let here = LinkAttributes::read(&socket, device::index(interface)?, None)?;
    let other = here.number(IFLA_LINK).ok_or(Errno::ENODEV)?;
    let namespace = here.number(IFLA_LINK_NETNSID);
    Ok(LinkAttributes::read(&socket, other, namespace)?.has_program())
}

/// Attributes of a device.
struct LinkAttributes(Vec<u8>);

impl LinkAttributes {
    fn read(socket: &OwnedFd, index: u32, namespace: Option<u32>) -> nix::Result<Self> {
        netlink::ask(socket, &question(index, namespace))?;
        let mut answer = vec![0; ROOM];
        let len = netlink::answer(socket, &mut answer)?;
        answer.truncate(len);
        Self::of(&answer)
    }

    /// Reads the attributes from a reply.
    fn of(answer: &[u8]) -> nix::Result<Self> {
        match u16_at(answer, 4) {
            Some(RTM_NEWLINK) => {}
            Some(NLMSG_ERROR) => return Err(error_of(answer)),
            Some(_) | None => return Err(Errno::EPROTO),
        }
        let attributes = answer.get(HEADER_LEN + DEVICE_LEN..);
        attributes
            .map(|octets| Self(octets.to_vec()))
            .ok_or(Errno::EPROTO)
    }

    fn number(&self, kind: u16) -> Option<u32> {
        u32_at(attribute(&self.0, kind)?, 0)
    }

    fn has_program(&self) -> bool {
        let program = attribute(&self.0, IFLA_XDP)
            .and_then(|programs| u32_at(attribute(programs, IFLA_XDP_DRV_PROG_ID)?, 0));
        program.is_some_and(|id| id != 0)
    }
}

fn question(index: u32, namespace: Option<u32>) -> Vec<u8> {
    let target = namespace.map(|id| with(IFLA_TARGET_NETNSID, &id.to_ne_bytes()));
    get_link(NLM_F_REQUEST, 0, index, &target.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, behind: &[u8]) -> Vec<u8> {
        let mut octets = vec![0; HEADER_LEN];
        octets[4..6].copy_from_slice(&kind.to_ne_bytes());
        octets.extend(behind);
        octets
    }

    #[test]
    fn the_program_in_the_driver_counts_and_no_other() {
        let of = |programs: &[u8]| {
            // A name whose length is no multiple of four, and a nested attribute with its flag.
            let attributes = [with(3, b"lan0\0"), with(0x8000 | IFLA_XDP, programs)].concat();
            let device = [vec![0; DEVICE_LEN], attributes].concat();
            LinkAttributes::of(&answer(RTM_NEWLINK, &device)).map(|device| device.has_program())
        };
        let generic = with(6, &7_u32.to_ne_bytes());
        assert_eq!(of(&[]), Ok(false));
        assert_eq!(of(&generic), Ok(false));
        let native = with(IFLA_XDP_DRV_PROG_ID, &7_u32.to_ne_bytes());
        assert_eq!(of(&[generic, native].concat()), Ok(true));
        assert_eq!(of(&with(IFLA_XDP_DRV_PROG_ID, &[0; 4])), Ok(false));
    }

    #[test]
    fn what_the_kernel_refuses_is_its_error_and_less_than_an_answer_is_none() {
        let refused = answer(NLMSG_ERROR, &(-libc::EPERM).to_ne_bytes());
        assert_eq!(LinkAttributes::of(&refused).err(), Some(Errno::EPERM));
        let whole = answer(RTM_NEWLINK, &[0; DEVICE_LEN]);
        for len in 0..whole.len() {
            assert!(LinkAttributes::of(&whole[..len]).is_err(), "{len}");
        }
        let attributes = [with(3, b"lan0"), with(IFLA_LINK, &9_u32.to_ne_bytes())].concat();
        for len in 0..attributes.len() {
            assert_eq!(
                LinkAttributes(attributes[..len].to_vec()).number(IFLA_LINK),
                None,
                "{len}"
            );
        }
        assert_eq!(LinkAttributes(attributes).number(IFLA_LINK), Some(9));
        // A length of 0 would never advance.
        assert_eq!(attribute(&[0; 64], IFLA_LINK), None);
    }

    #[test]
    fn a_device_in_another_namespace_is_asked_for_there() {
        let here = question(7, None);
        assert_eq!(here.len(), HEADER_LEN + DEVICE_LEN);
        let there = question(7, Some(3));
        assert_eq!(u32_at(&there, 0), Some(there.len() as u32));
        let attributes = &there[HEADER_LEN + DEVICE_LEN..];
        let target = attribute(attributes, IFLA_TARGET_NETNSID);
        assert_eq!(target.and_then(|id| u32_at(id, 0)), Some(3));
    }

    #[test]
    fn loopback_is_no_end_of_a_pair() {
        assert!(takes_frames("lo").is_err());
        assert_eq!(takes_frames("no-such-device"), Err(Errno::ENODEV));
    }
}
