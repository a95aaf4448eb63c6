//! HTTP requests and responses. `httparse` parses the bytes from outside.

use std::net::IpAddr;
use std::time::SystemTime;

/// Maximum number of headers in a request.
const HEADERS_MAX: usize = 48;

/// Host names that the site answers to.
#[derive(Debug)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// These names; addresses and `localhost` are always accepted.
    pub fn new(names: impl Iterator<Item = String>) -> Self {
        let plain = |name: String| name.trim_end_matches('.').to_ascii_lowercase();
        Self(names.map(plain).collect())
    }

    /// True if the site answers to this name. Only the name tells our page from a foreign one that suddenly resolves to our
    /// address (DNS rebinding).
    fn has(&self, host: &str) -> bool {
        let bare = match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        let name = bare.trim_end_matches('.').to_ascii_lowercase();
        bare.parse::<IpAddr>().is_ok() || name == "localhost" || self.0.contains(&name)
    }
}

/// A valid request.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Path without the query after `?`.
    pub path: String,
    /// True for HEAD.
    pub is_head: bool,
}

/// True if the head is complete.
pub fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|part| part == b"\r\n\r\n") || head.windows(2).any(|part| part == b"\n\n")
}

impl HttpRequest {
    /// Parses a request.
    ///
    /// # Errors
    /// The response to send instead.
    pub fn parse(head: &[u8], hosts: &Hosts) -> Result<Self, HttpResponse> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let complete = match parsed.parse(head) {
            Ok(status) => status.is_complete(),
            Err(httparse::Error::Version) => {
                return Err(HttpResponse::plain(505, "HTTP/1.1 and HTTP/1.0 are served"));
            }
            Err(_) => return Err(HttpResponse::plain(400, "malformed request")),
        };
        // A client knows by the method alone whether the answer has a body.
        let is_head = parsed.method == Some("HEAD");
        let target = if complete {
            target_of(&parsed, hosts)
        } else {
            Err(HttpResponse::plain(400, "the request is cut short"))
        };
        let path = target.map_err(|refused| refused.without_body(is_head))?;
        Ok(Self { path, is_head })
    }
}

/// The path that is asked for (RFC 9112 section 3.2).
fn target_of(parsed: &httparse::Request<'_, '_>, hosts: &Hosts) -> Result<String, HttpResponse> {
    match parsed.method.unwrap_or_default() {
        "GET" | "HEAD" => {}
        "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" => {
            return Err(HttpResponse::plain(405, "only GET and HEAD are served"));
        }
        _ => return Err(HttpResponse::plain(501, "only GET and HEAD are known")),
    }
    let is_host = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("host");
    let mut named = parsed.headers.iter().filter(is_host);
    let named = (named.next(), named.next());
    let field = match named {
        (_, Some(_)) => return Err(HttpResponse::plain(400, "more than one Host header")),
        (None, None) if parsed.version == Some(1) => {
            return Err(HttpResponse::plain(400, "no Host header"));
        }
        (None, None) => "",
        (Some(host), None) => std::str::from_utf8(host.value)
            .ok()
            .map(str::trim)
            .filter(|host| !host.contains(|c: char| c.is_whitespace() || "/?#@,".contains(c)))
            .ok_or_else(|| HttpResponse::plain(400, "malformed Host header"))?,
    };
    let target = parsed.path.unwrap_or_default();
    // The absolute form, as a proxy is asked: its host counts, whatever the header says.
    let scheme = target.get(..7).unwrap_or_default();
    let (host, path) = if scheme.eq_ignore_ascii_case("http://") {
        let rest = &target[7..];
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        (&rest[..end], &rest[end..])
    } else {
        (field, target)
    };
    if !hosts.has(host) {
        return Err(HttpResponse::plain(
            421,
            "ask by an address, or by a name of web.hosts",
        ));
    }
    let path = path.split('?').next().unwrap_or_default();
    Ok(if path.is_empty() { "/" } else { path }.to_owned())
}

/// A response.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpResponse {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
    has_body: bool,
}

const TEXT: &str = "text/plain; charset=utf-8";

impl HttpResponse {
    fn new(status: u16, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            kind,
            body: body.into(),
            has_body: true,
        }
    }

    /// A response with a line of text.
    pub fn plain(status: u16, text: &str) -> Self {
        Self::new(status, TEXT, format!("{text}\n"))
    }

    pub fn page(html: &str) -> Self {
        Self::new(200, "text/html; charset=utf-8", html)
    }

    /// A response with metrics for Prometheus.
    pub fn metrics(text: String) -> Self {
        Self::new(200, "text/plain; version=0.0.4; charset=utf-8", text)
    }

    pub fn json(text: String) -> Self {
        Self::new(200, "application/json", text)
    }

    /// Without its body if `is_head`.
    pub fn without_body(self, is_head: bool) -> Self {
        Self {
            has_body: !is_head,
            ..self
        }
    }

    /// Bytes of the response. The headers forbid the page to load anything from elsewhere, and others to frame it. `now` is the
    /// time for its Date; `None` if the clock is not set (RFC 9110 section 6.6.1).
    pub fn bytes(&self, now: Option<SystemTime>) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            421 => "Misdirected Request",
            501 => "Not Implemented",
            503 => "Service Unavailable",
            505 => "HTTP Version Not Supported",
            _ => "",
        };
        let date = now.map_or(String::new(), |now| {
            format!("Date: {}\r\n", httpdate::fmt_http_date(now))
        });
        let allow = match self.status {
            405 => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        let mut bytes = format!(
            "HTTP/1.1 {} {reason}\r\n{date}{allow}Content-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nContent-Security-Policy: default-src 'none'; \
             style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'; \
             base-uri 'none'; form-action 'none'\r\n\r\n",
            self.status,
            self.kind,
            self.body.len(),
        )
        .into_bytes();
        if self.has_body {
            bytes.extend(&self.body);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &str) -> Result<(String, bool), u16> {
        let hosts = Hosts::new(["Router.lan.".to_owned()].into_iter());
        let request = HttpRequest::parse(head.as_bytes(), &hosts);
        request
            .map(|request| (request.path, request.is_head))
            .map_err(|answer| answer.status)
    }

    #[test]
    fn requests_are_read_and_others_refused() {
        for (head, expected) in [
            (
                "GET / HTTP/1.1\r\nHost: 192.168.1.1:9153\r\n\r\n",
                Ok(("/", false)),
            ),
            (
                "GET /metrics?x=1 HTTP/1.1\r\nhost: [fd00::1]:80\r\n\r\n",
                Ok(("/metrics", false)),
            ),
            (
                "HEAD / HTTP/1.0\r\nHost: ROUTER.LAN\r\n\r\n",
                Ok(("/", true)),
            ),
            (
                "GET / HTTP/1.1\r\nHost: localhost:1\r\n\r\n",
                Ok(("/", false)),
            ),
            ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", Err(421)),
            (
                "GET / HTTP/1.1\r\nHost: router.lan.evil.example\r\n\r\n",
                Err(421),
            ),
            ("GET / HTTP/1.1\r\n\r\n", Err(400)),
            ("GET / HTTP/1.0\r\n\r\n", Err(421)),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Err(400)),
            ("GET / HTTP/1.1\r\nHost: 10.0.0.1/\r\n\r\n", Err(400)),
            ("GET / HTTP/1.1\r\nHost: \r\n\r\n", Err(421)),
            (
                "GET HTTP://router.lan:80/metrics?x HTTP/1.1\r\nHost: evil.example\r\n\r\n",
                Ok(("/metrics", false)),
            ),
            (
                "GET http://10.0.0.1?x HTTP/1.1\r\nHost: router.lan\r\n\r\n",
                Ok(("/", false)),
            ),
            (
                "GET http://evil.example/ HTTP/1.1\r\nHost: router.lan\r\n\r\n",
                Err(421),
            ),
            (
                "GET http://user@router.lan/ HTTP/1.1\r\nHost: router.lan\r\n\r\n",
                Err(421),
            ),
            ("GET / HTTP/2.0\r\nHost: 10.0.0.1\r\n\r\n", Err(505)),
            ("BREW / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", Err(501)),
            ("get / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", Err(501)),
            (
                "GET / HTTP/1.1\r\nHost: router.lan\r\nhost: evil.example\r\n\r\n",
                Err(400),
            ),
            ("POST / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", Err(405)),
            ("GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n", Err(400)),
            ("\x16\x03\x01\r\n\r\n", Err(400)),
        ] {
            let expected = expected.map(|(path, is_head)| (path.to_owned(), is_head));
            assert_eq!(parsed(head), expected, "{head}");
        }
        assert!(is_whole(b"GET /\r\n\r\n") && is_whole(b"GET /\n\n") && !is_whole(b"GET /\r\n"));
    }

    #[test]
    fn an_answer_says_how_long_it_is_and_head_has_no_more() {
        let answer = HttpResponse::plain(404, "no");
        let start = Some(SystemTime::UNIX_EPOCH);
        let text = String::from_utf8(answer.bytes(start)).expect("text");
        let begin = "HTTP/1.1 404 Not Found\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type";
        assert!(text.starts_with(begin), "{text}");
        assert!(
            text.contains("\r\nContent-Length: 3\r\n") && text.ends_with("\r\n\r\nno\n"),
            "{text}"
        );
        let hosts = Hosts::new(std::iter::empty());
        let refused = |head: &str| {
            let refused = HttpRequest::parse(head.as_bytes(), &hosts).expect_err("refused");
            String::from_utf8(refused.bytes(None)).expect("text")
        };
        let elsewhere = refused("HEAD / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        let head = String::from_utf8(answer.without_body(true).bytes(None)).expect("text");
        for head in [head, elsewhere] {
            assert!(
                head.contains("\r\nContent-Length: ") && head.ends_with("\r\n\r\n"),
                "{head}"
            );
            assert!(!head.contains("Date:"), "{head}");
        }
        let post = refused("POST / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n");
        assert!(post.contains("\r\nAllow: GET, HEAD\r\n"), "{post}");
    }
}
