//! Records of dnsmasq's options, as `local.records` has them.

use std::net::IpAddr;

/// Those of one line.
///
/// # Errors
/// Something is missing.
pub fn records(option: &str, parts: &[String]) -> Result<Vec<String>, String> {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let too_few = || "something is missing behind it".to_owned();
    let (first, rest) = parts.split_first().ok_or_else(too_few)?;
    let of = |index: usize, default| {
        let part = rest.get(index).copied();
        part.filter(|part| !part.is_empty()).unwrap_or(default)
    };
    Ok(match option {
        "host-record" => return hosts(&parts),
        "cname" => {
            let (ttl, names) = match parts.last().and_then(|last| last.parse::<u32>().ok()) {
                Some(ttl) => (format!("{ttl} "), &parts[..parts.len() - 1]),
                None => (String::new(), parts.as_slice()),
            };
            let (target, names) = names.split_last().ok_or_else(too_few)?;
            if names.is_empty() {
                return Err(too_few());
            }
            let alias = |name: &&str| format!("{name} {ttl}CNAME {target}");
            names.iter().map(alias).collect()
        }
        "ptr-record" => {
            let target = rest.first().ok_or_else(too_few)?;
            vec![format!(
                "{} PTR {}",
                in_one_word(first),
                in_one_word(target)
            )]
        }
        "txt-record" => {
            // A record has one text at least.
            let texts = if rest.is_empty() { &[""][..] } else { rest };
            let texts: Vec<String> = texts.iter().map(|text| in_quotes(text)).collect();
            vec![format!("{first} TXT {}", texts.join(" "))]
        }
        "mx-host" => match of(0, "") {
            "" => {
                return Err("without a target it is mx-target's, or this machine's name, there: write the MX record into local.records".into());
            }
            target => vec![format!("{first} MX {} {target}", of(1, "1"))],
        },
        _ => {
            let [target, port, priority, weight] = [of(0, "."), of(1, "1"), of(2, "0"), of(3, "0")];
            vec![format!("{first} SRV {priority} {weight} {port} {target}")]
        }
    })
}

/// `NAME[,NAME…],ADDRESS[,ADDRESS][,TTL]`.
fn hosts(parts: &[&str]) -> Result<Vec<String>, String> {
    let ttl = parts.last().and_then(|last| last.parse::<u32>().ok());
    let parts = if ttl.is_some() {
        &parts[..parts.len() - 1]
    } else {
        parts
    };
    let ttl = ttl.map(|ttl| format!("{ttl} ")).unwrap_or_default();
    let is_address = |part: &&&str| part.parse::<IpAddr>().is_ok();
    let parts = parts.iter().filter(|part| !part.is_empty());
    let (addresses, names): (Vec<&&str>, Vec<&&str>) = parts.partition(is_address);
    if addresses.is_empty() || names.is_empty() {
        return Err("a name and an address are wanted".into());
    }
    let mut records = Vec::new();
    for name in names {
        for address in &addresses {
            let rtype = if address.contains(':') { "AAAA" } else { "A" };
            records.push(format!("{name} {ttl}{rtype} {address}"));
        }
    }
    Ok(records)
}

/// A name with its blanks as `\032`: those of services have some (RFC 6763 section 4.1.1).
fn in_one_word(name: &str) -> String {
    name.replace(' ', "\\032")
}

/// A text in presentation format: `\DDD` is a byte (RFC 1035 section 5.1).
fn in_quotes(text: &str) -> String {
    let mut quoted = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            control if control.is_ascii_control() => {
                quoted.push_str(&format!("\\{:03}", u32::from(control)));
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}
