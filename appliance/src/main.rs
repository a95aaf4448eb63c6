//! xdnsd: a DNS forwarder for routers on XDP and AF_XDP.

fn main() {}
