//! `xdnsd why`: explains the answer to a question.

use std::io::Write;
use std::net::IpAddr;

use serde_json::{Value, json};
use xdnsd_core::answer::{ANY_TYPE, Key};
use xdnsd_core::dns::record::Records;
use xdnsd_core::dns::{class, rtype};
use xdnsd_core::policy::BlockRecord;

use super::dump::{dump_where, entries_json};
use super::presentation::{type_number, type_text};
use super::rdata::record_text;
use super::socket::CommandError;
use crate::compile::local::GivenRecord;
use crate::compile::name;
use crate::compile::why::{Handling, Location, PolicyTrace, Statement, WhyQuestion};
use crate::os::device;
use crate::store::SharedCache;
use crate::text;

/// What is known of an answer that policy has put in place of upstream's, of which nothing is kept.
const WITHHELD: &str = "answers: upstream's answer is withheld. Either it leads by an alias (CNAME, HTTPS) to a blocked \
    name: look the aliases up at the upstream server, and ask `xdnsd why` for each. Or it has an address that may not be \
    given: [rebind], forward.bogus_nxdomain, filter_a or filter_aaaa";

/// Parses `NAME [TYPE] [CLIENT]`.
///
/// # Errors
/// What is wrong with the words.
pub fn question(words: &[&str]) -> Result<WhyQuestion, String> {
    let (written, rest) = words.split_first().ok_or("a name is missing")?;
    let name = name::parse(written).map_err(|error| format!("`{written}` {error}"))?;
    let (mut qtype, mut client, mut device) = (None, None, 0);
    for word in rest {
        let (number, address) = (type_number(word), client_address(word)?);
        match (number, address) {
            (Some(number), _) if qtype.is_none() && client.is_none() => qtype = Some(number),
            (None, Some(address)) if client.is_none() => {
                client = Some(address);
                device = device_of(word);
            }
            (Some(_), _) | (None, Some(_)) => return Err(format!("`{word}` is too much")),
            (None, None) => {
                return Err(format!(
                    "`{word}` is neither a type, such as AAAA, nor a client's address"
                ));
            }
        }
    }
    Ok(WhyQuestion {
        name,
        qtype: qtype.unwrap_or(rtype::A),
        client,
        device,
    })
}

/// Index of the interface in a client's address; 0 if it has none.
fn device_of(word: &str) -> u32 {
    let zone = word.split_once('%').map_or("", |(_, zone)| zone);
    let index = device::index(zone).ok();
    index.or_else(|| zone.parse().ok()).unwrap_or(0)
}

/// Address of a client. A link-local one may name its interface, as `ip neigh` and others show it (RFC 4007 section 11): its
/// view may depend on it.
fn client_address(word: &str) -> Result<Option<IpAddr>, String> {
    let Some((address, zone)) = word.split_once('%') else {
        return Ok(word.parse().ok());
    };
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.is_unicast_link_local() && !zone.is_empty() => Ok(Some(v6.into())),
        Ok(IpAddr::V6(v6)) if v6.is_unicast_link_local() => {
            Err(format!("`{word}` has no interface behind %"))
        }
        Ok(_) => Err(format!(
            "`{word}`: an address that is not link-local names no interface: {address}"
        )),
        Err(_) => Ok(None),
    }
}

/// Writes the outcome for the question, the source that decides it, and the entries of the cache.
///
/// # Errors
/// Writing to `out` fails.
pub fn write(
    why: &PolicyTrace,
    cache: &SharedCache,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let WhyQuestion { name, qtype, .. } = &why.question;
    let (name, rtype) = (name::display(name), type_text(*qtype));
    writeln!(
        out,
        "{name} {rtype}: {}",
        handling_text(why.handling, *qtype)
    )?;
    for reason in &why.reasons {
        writeln!(out, "  {}", reason_text(reason))?;
    }
    let mut is_kept = false;
    let is_of_policy = dump_where(cache, out, "  cache: ", |key| {
        let is_meant = is_meant(why, key);
        is_kept |= is_meant;
        is_meant
    })?;
    if !is_kept {
        writeln!(out, "  cache: has no answer")?;
    }
    if is_of_policy {
        writeln!(out, "  {WITHHELD}")?;
    }
    Ok(())
}

/// The same as JSON.
#[must_use]
pub fn json(why: &PolicyTrace, cache: &SharedCache) -> Value {
    let WhyQuestion {
        name,
        qtype,
        client,
        ..
    } = &why.question;
    let reason = |reason: &Statement| {
        let place = reason.place.clone().unwrap_or_default();
        json!({
            "source": reason.source.word(),
            "says": said(reason),
            "key": place.key,
            "file": place.file,
            "line": place.line,
            "text": place.text,
        })
    };
    let answer = match why.handling {
        Handling::Blocked(record, _) => Some(block_text(record, *qtype)),
        Handling::Dropped
        | Handling::Refused
        | Handling::Local
        | Handling::Special
        | Handling::PlainName
        | Handling::Any
        | Handling::Endless
        | Handling::Forwarded => None,
    };
    json!({
        "name": name::display(name),
        "type": type_text(*qtype),
        "client": client.map(|client| client.to_string()),
        "verdict": why.handling.word(),
        "blocked_with": answer,
        "reasons": why.reasons.iter().map(reason).collect::<Value>(),
        "target": name::display(&why.target),
        "view": why.view,
        "cache": entries_json(cache, |key| is_meant(why, key)),
    })
}

/// True if a cache entry answers the question.
fn is_meant(why: &PolicyTrace, key: &Key<'_>) -> bool {
    let is_asked = key.qtype == why.question.qtype || key.qtype == ANY_TYPE;
    is_asked && key.name == why.target && key.view == why.view
}

/// Text of a source's statement.
fn said(reason: &Statement) -> String {
    let given = reason.record.as_ref().map(given_text);
    given.unwrap_or_else(|| reason.what.clone())
}

fn handling_text(handling: Handling, qtype: u16) -> String {
    match handling {
        Handling::Dropped => "dropped, the client gets no answer".into(),
        Handling::Refused => "refused".into(),
        Handling::Local => "answered from local data".into(),
        Handling::Special => "answered here, a special-use name".into(),
        Handling::Blocked(record, ttl_secs) => {
            format!("blocked, {} with TTL {ttl_secs}", block_text(record, qtype))
        }
        Handling::PlainName => "answered here, NXDOMAIN".into(),
        Handling::Any => "answered here, as RFC 8482 says".into(),
        Handling::Endless => "answered SERVFAIL".into(),
        Handling::Forwarded => "forwarded".into(),
    }
}

/// Answer for a blocked name.
fn block_text(record: BlockRecord, qtype: u16) -> String {
    match record {
        BlockRecord::Nxdomain => "NXDOMAIN".into(),
        BlockRecord::Nodata => format!("no {}", type_text(qtype)),
        BlockRecord::A(octets) => IpAddr::from(octets).to_string(),
        BlockRecord::Aaaa(octets) => IpAddr::from(octets).to_string(),
    }
}

/// `block: blocked; filter.block /etc/xdnsd.toml:7: ads.example`.
fn reason_text(reason: &Statement) -> String {
    let what = said(reason);
    let place = reason.place.as_ref().map(place_text);
    let place = place.map_or_else(String::new, |place| format!("; {place}"));
    text::line(&format!("{}: {what}{place}", reason.source.word())).into_owned()
}

fn place_text(place: &Location) -> String {
    let mut words: Vec<String> = place.key.into_iter().map(str::to_owned).collect();
    words.extend(match (&place.file, place.line) {
        (Some(file), Some(line)) => Some(format!("{file}:{line}")),
        (Some(file), None) => Some(file.clone()),
        (None, _) => Some("by default".to_owned()).filter(|_| place.key.is_some()),
    });
    let place_text = words.join(" ");
    let text = place.text.as_ref();
    text.map_or(place_text.clone(), |text| format!("{place_text}: {text}"))
}

/// A record of local data in presentation format.
fn given_text(given: &GivenRecord) -> String {
    let mut message = given.owner.clone();
    message.extend(given.rtype.to_be_bytes());
    message.extend(class::IN.to_be_bytes());
    message.extend(given.ttl_secs.to_be_bytes());
    message.extend((given.rdata.len() as u16).to_be_bytes());
    message.extend(&given.rdata);
    let record = Records::new(&message, 0, 1).flatten().next();
    record.map_or_else(String::new, |record| {
        record_text(&message, &record, given.ttl_secs)
    })
}
