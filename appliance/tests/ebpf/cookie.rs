//! DNS cookies and hot names: a query with its own cookie gets the answer from the program, and all others from user space.

use crate::frames::Query;
use crate::hot::{
    ONE, OPT, OPT_DO, PREVIOUS, RD, SECRET, TTL_SECS, Tiers, WALL_SECS, address, both, key,
    message, wall, wire_name, with_message,
};
use xdnsd_abi::hot::HotOutcome;

/// An OPT record with options and their length.
pub fn with_options(opt: &[u8], options: &[u8]) -> Vec<u8> {
    let mut opt = opt.to_vec();
    opt[9..11].copy_from_slice(&(options.len() as u16).to_be_bytes());
    [&opt, options].concat()
}

/// An option with a cookie.
pub fn cookie_option(cookie: &[u8]) -> Vec<u8> {
    [&[0, 10, 0, cookie.len() as u8], cookie].concat()
}

impl Tiers {
    /// Cookie that the forwarder gives to this query's client, at its time of day: the end of its answer.
    pub fn cookie(&mut self, query: &Query) -> Vec<u8> {
        let opt = with_options(&OPT, &cookie_option(b"a client"));
        let asked = message("www.example.com", 1, RD, &opt);
        let reply = self.forward(&with_message(query, asked).frame());
        let cookie = reply[reply.len() - 24..].to_vec();
        assert_eq!(cookie[..8], *b"a client");
        cookie
    }
}

/// A valid cookie comes back with the answer, as from the forwarder, while it is young.
#[test]
fn a_good_cookie_is_given_back() {
    let Some(mut tiers) = Tiers::new("a_good_cookie_is_given_back") else {
        return;
    };
    let name = wire_name("www.example.com");
    tiers.keep(&key(&name, 1, RD, &OPT), ONE, &address(TTL_SECS));
    tiers.keep(&key(&name, 1, RD, &OPT_DO), ONE, &address(TTL_SECS));
    for query in both() {
        for age_secs in [-299, -200, 0, 200, 1_790] {
            tiers.unix_secs = (WALL_SECS as i64 - age_secs) as u32;
            let cookie = tiers.cookie(&query);
            tiers.unix_secs = WALL_SECS as u32;
            for opt in [OPT, OPT_DO] {
                let opt = with_options(&opt, &cookie_option(&cookie));
                let asked = message("wWw.example.com", 1, RD, &opt);
                let frame = with_message(&query, asked).frame();
                let forwarded = tiers.forward(&frame);
                assert_eq!(forwarded[forwarded.len() - 24..], cookie);
                tiers.hot.set_cookies(wall(), Some(&SECRET));
                assert_eq!(tiers.ask(&frame), Ok(forwarded), "{age_secs}: {opt:02x?}");
            }
        }
        // Without a cookie the same answer is hot.
        let plain = with_message(&query, message("www.example.com", 1, RD, &OPT)).frame();
        let forwarded = tiers.forward(&plain);
        assert_eq!(tiers.ask(&plain), Ok(forwarded));
    }
}

/// Any other cookie is left to user space, which gives a new one.
#[test]
fn no_other_cookie_is_given_back() {
    let Some(mut tiers) = Tiers::new("no_other_cookie_is_given_back") else {
        return;
    };
    let name = wire_name("www.example.com");
    tiers.keep(&key(&name, 1, RD, &OPT), ONE, &address(TTL_SECS));
    for query in both() {
        let frame = |options: &[u8]| {
            let asked = message("www.example.com", 1, RD, &with_options(&OPT, options));
            with_message(&query, asked).frame()
        };
        let good = tiers.cookie(&query);
        let option = cookie_option(&good);
        tiers.hot.set_cookies(wall(), Some(&SECRET));
        assert!(tiers.ask(&frame(&option)).is_ok());
        for at in 0..good.len() {
            let mut forged = good.clone();
            forged[at] ^= 1;
            let answer = tiers.ask(&frame(&cookie_option(&forged)));
            assert_eq!(answer, Err(HotOutcome::NotPlain), "byte {at}");
        }
        for (what, options) in [
            ("a client's alone", cookie_option(&good[..8])),
            (
                "a longer one",
                cookie_option(&[&good[..], &[0; 8]].concat()),
            ),
            ("a shorter one", cookie_option(&good[..23])),
            ("another option", [&[0, 11], &option[2..]].concat()),
            ("another length", [&[0, 10, 0, 23], &option[4..]].concat()),
            (
                "another one behind it",
                [&option[..], &[0, 3, 0, 0]].concat(),
            ),
            ("it is cut", option[..27].to_vec()),
        ] {
            let answer = tiers.ask(&frame(&options));
            assert_eq!(answer, Err(HotOutcome::NotPlain), "{what}");
        }
        // A length that does not match the message.
        let mut asked = message("www.example.com", 1, RD, &with_options(&OPT, &option));
        asked.truncate(asked.len() - 1);
        let cut = with_message(&query, asked).frame();
        assert_eq!(tiers.ask(&cut), Err(HotOutcome::NotPlain));
        for (age_secs, is_given) in [(1_790, true), (1_801, false), (-290, true), (-310, false)] {
            let late = wall().wrapping_add_signed(age_secs);
            tiers.hot.set_cookies(late, Some(&SECRET));
            let answer = tiers.ask(&frame(&option));
            assert_eq!(answer.is_ok(), is_given, "{age_secs}: {answer:?}");
        }
        tiers.hot.set_cookies(wall(), None);
        assert_eq!(tiers.ask(&frame(&option)), Err(HotOutcome::NotPlain), "off");
        tiers.hot.set_cookies(wall(), Some(&PREVIOUS));
        let answer = tiers.ask(&frame(&option));
        assert_eq!(answer, Err(HotOutcome::NotPlain), "by another secret");
        // A cookie by the previous secret is valid in user space, which gives a new one.
        tiers.secrets = [PREVIOUS, SECRET];
        let other = tiers.forward(&frame(&option));
        assert_ne!(other[other.len() - 24..], good);
        tiers.secrets = [SECRET, PREVIOUS];
        tiers.hot.set_cookies(wall(), Some(&SECRET));
        assert!(tiers.ask(&frame(&option)).is_ok(), "still hot");
    }
    let [first, second] = both().map(|query| cookie_option(&tiers.cookie(&query)));
    for (query, option) in both().into_iter().zip([second, first]) {
        let asked = message("www.example.com", 1, RD, &with_options(&OPT, &option));
        let answer = tiers.ask(&with_message(&query, asked).frame());
        assert_eq!(answer, Err(HotOutcome::NotPlain), "somebody else's");
    }
}
