//! Messages of nfnetlink about sets (linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h). Numbers in attributes are
//! big-endian.
//!
//! ```text
//!  | header 16 | family, version, resource 4 | attributes
//!  a change of elements: BATCH_BEGIN | NEWSETELEM … | BATCH_END
//!  its attributes: TABLE | SET | ELEMENTS: one for each: FLAGS of a range's end | KEY: VALUE
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{SetFault, SetInfo, SetName};
use crate::os::netlink::{HEADER_LEN, NLM_F_REQUEST, attribute, u16_at, with};

/// NFNL_SUBSYS_NFTABLES, as the resource of a batch and as the high byte of a type.
const NF_TABLES: u8 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_NEWSET: u16 = of_nf_tables(9);
const NFT_MSG_GETSET: u16 = of_nf_tables(10);
const NFT_MSG_NEWSETELEM: u16 = of_nf_tables(12);
const NFT_MSG_DELSETELEM: u16 = of_nf_tables(14);
const NLM_F_CREATE: u16 = 0x400;
/// Marks an attribute that has others in it.
const NLA_F_NESTED: u16 = 0x8000;

const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFT_SET_CONSTANT: u32 = 0x2;
const NFT_SET_INTERVAL: u32 = 0x4;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_TIMEOUT: u32 = 0x10;
/// Types of keys, as `nft` numbers them: the kernel keeps them for it.
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;

const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_DATA_VALUE: u16 = 1;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;

/// Bytes of struct nfgenmsg.
const GENERAL_LEN: usize = 4;

const fn of_nf_tables(number: u16) -> u16 {
    (NF_TABLES as u16) << 8 | number
}

/// Asks for a set.
pub fn get_set(set: &SetName) -> Vec<u8> {
    let names = [
        with(NFTA_SET_TABLE, &text(set.table())),
        with(NFTA_SET_NAME, &text(set.set())),
    ];
    let kind = (NFT_MSG_GETSET, NLM_F_REQUEST);
    message(kind, 0, [set.family(), 0, 0, 0], &names.concat())
}

/// Reads the reply.
///
/// # Errors
/// The set takes no addresses.
pub fn read_set(reply: &[u8]) -> Result<SetInfo, SetFault> {
    let attributes = reply.get(HEADER_LEN + GENERAL_LEN..);
    let attributes = attributes.filter(|_| u16_at(reply, 4) == Some(NFT_MSG_NEWSET));
    let attributes = attributes.ok_or(SetFault::Kernel(nix::errno::Errno::EPROTO))?;
    let number = |kind| {
        let octets = attribute(attributes, kind)?.first_chunk()?;
        Some(u32::from_be_bytes(*octets))
    };
    let flags = number(NFTA_SET_FLAGS).unwrap_or(0);
    let is_v6 = match number(NFTA_SET_KEY_TYPE) {
        Some(IPV4_ADDR) => false,
        Some(IPV6_ADDR) => true,
        Some(_) | None => return Err(SetFault::OtherKeys),
    };
    if flags & NFT_SET_MAP != 0 {
        return Err(SetFault::Map);
    }
    if flags & NFT_SET_CONSTANT != 0 {
        return Err(SetFault::Constant);
    }
    Ok(SetInfo {
        is_v6,
        is_interval: flags & NFT_SET_INTERVAL != 0,
        has_timeout: flags & NFT_SET_TIMEOUT != 0,
    })
}

/// Adds addresses in one batch. Where elements end by themselves, each is added, removed and added: so it is there at every moment,
/// begins anew, and it makes no difference whether it was there.
pub fn add(set: &SetName, info: SetInfo, addresses: &[IpAddr]) -> Vec<u8> {
    let names = [
        with(NFTA_SET_ELEM_LIST_TABLE, &text(set.table())),
        with(NFTA_SET_ELEM_LIST_SET, &text(set.set())),
    ];
    let elements = nested(NFTA_SET_ELEM_LIST_ELEMENTS, &elements(info, addresses));
    let attributes = [names.concat(), elements].concat();
    let new = (NFT_MSG_NEWSETELEM, NLM_F_REQUEST | NLM_F_CREATE);
    let changes: &[(u16, u16)] = if info.has_timeout {
        &[new, (NFT_MSG_DELSETELEM, NLM_F_REQUEST), new]
    } else {
        &[new]
    };
    let of_batch = [0, 0, 0, NF_TABLES];
    let mut batch = message((NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST), 0, of_batch, &[]);
    let mut sequence = 1;
    for kind in changes {
        let general = [set.family(), 0, 0, 0];
        batch.extend(message(*kind, sequence, general, &attributes));
        sequence += 1;
    }
    let end = (NFNL_MSG_BATCH_END, NLM_F_REQUEST);
    batch.extend(message(end, sequence, of_batch, &[]));
    batch
}

fn elements(info: SetInfo, addresses: &[IpAddr]) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut number = 0;
    let mut push = |content: &[u8]| {
        number += 1;
        octets.extend(nested(number, content));
    };
    for address in addresses {
        push(&key(*address));
        // The end of a range is the first address behind it. Behind the last of all there is none.
        if let Some(behind) = behind(*address).filter(|_| info.is_interval) {
            let flags = with(
                NFTA_SET_ELEM_FLAGS,
                &NFT_SET_ELEM_INTERVAL_END.to_be_bytes(),
            );
            push(&[flags, key(behind)].concat());
        }
    }
    octets
}

fn behind(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().checked_add(1)?).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().checked_add(1)?).into(),
    })
}

fn key(address: IpAddr) -> Vec<u8> {
    let value = match address {
        IpAddr::V4(v4) => with(NFTA_DATA_VALUE, &v4.octets()),
        IpAddr::V6(v6) => with(NFTA_DATA_VALUE, &v6.octets()),
    };
    nested(NFTA_SET_ELEM_KEY, &value)
}

fn nested(kind: u16, content: &[u8]) -> Vec<u8> {
    with(kind | NLA_F_NESTED, content)
}

/// A string as the kernel takes it.
fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// A message of this type, with these flags. `general` is struct nfgenmsg.
fn message(
    (kind, flags): (u16, u16),
    sequence: u32,
    general: [u8; GENERAL_LEN],
    attributes: &[u8],
) -> Vec<u8> {
    let len = HEADER_LEN + GENERAL_LEN + attributes.len();
    let mut octets = Vec::with_capacity(len);
    octets.extend((len as u32).to_ne_bytes());
    octets.extend(kind.to_ne_bytes());
    octets.extend(flags.to_ne_bytes());
    octets.extend(sequence.to_ne_bytes());
    // Port ID.
    octets.extend([0; 4]);
    octets.extend(general);
    octets.extend(attributes);
    octets
}
