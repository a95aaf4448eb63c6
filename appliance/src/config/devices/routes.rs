//! Which endpoints have the XDP program ask the kernel's routes, and whether the kernel answers it.
//!
//! The program asks as for a packet from the loopback device (bpf_fib_lookup, `BPF_FIB_LKUP_RET_FWD_DISABLED`). Of a family that
//! the kernel does not forward from there it tells no route, and the query passes.

use std::net::IpAddr;

use super::{Config, ConfigText, Devices, Endpoint, LOOPBACK};
use crate::config::schema::{Interface, RouteCheck, XdpMode};

/// Families of which the kernel forwards packets that come from a device: `forwarding` of ip-sysctl.rst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { v4: true, v6: true }
    }
}

impl Forwarding {
    /// Reads it for the device `name`. Where the kernel says nothing, the family is not there.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let is_on = |family: &str| {
            let path = format!("/proc/sys/net/{family}/conf/{name}/forwarding");
            std::fs::read_to_string(path).map_or(true, |value| value.trim() != "0")
        };
        Self {
            v4: is_on("ipv4"),
            v6: is_on("ipv6"),
        }
    }

    /// What programs are told of: routes of these families.
    #[must_use]
    pub fn of_routes() -> Self {
        Self::of(LOOPBACK)
    }

    /// True if routes of both families are told.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.v4 && self.v6
    }

    const fn has(self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        }
    }
}

impl Devices {
    /// What programs were told of when the devices were read.
    #[must_use]
    pub fn routes_told(&self) -> Forwarding {
        let loopback = self.named(LOOPBACK);
        loopback.map_or_else(Forwarding::default, |device| device.forwarding)
    }
}

impl Interface {
    /// True if the program asks the kernel's routes before a query to `endpoint`, which is of this section, is answered.
    #[must_use]
    pub fn asks_routes(&self, endpoint: &Endpoint, devices: &Devices) -> bool {
        let is_strict = || {
            devices
                .named(&endpoint.device)
                .is_some_and(|device| device.is_strict)
        };
        match self.route_check {
            RouteCheck::Always => true,
            RouteCheck::Never => false,
            // The kernel does not check IPv6 sources.
            RouteCheck::Auto => {
                devices.has_vlans(self.name.as_str()) || endpoint.addr.is_ipv4() && is_strict()
            }
        }
    }

    /// True if it asks them, and a program is there that could answer.
    fn asks_in_program(&self, endpoint: &Endpoint, devices: &Devices) -> bool {
        let has_program = match self.xdp {
            XdpMode::Off => false,
            XdpMode::Auto => self.name.as_str() != LOOPBACK,
            XdpMode::Native | XdpMode::Generic => true,
        };
        let device = devices.named(&endpoint.device);
        has_program
            && device.is_some_and(|device| device.mac.is_some())
            && self.asks_routes(endpoint, devices)
    }
}

impl Config {
    /// True if any program asks the kernel's routes.
    #[must_use]
    pub fn asks_routes(&self, endpoints: &[Endpoint], devices: &Devices) -> bool {
        endpoints
            .iter()
            .any(|endpoint| self.interfaces[endpoint.interface].asks_in_program(endpoint, devices))
    }
}

/// Warns of sections whose queries all pass because the kernel tells no routes. A link-local address is served mostly beside
/// others.
pub fn check(source: &mut ConfigText, config: &Config, devices: &Devices, endpoints: &[Endpoint]) {
    let forwarding = devices.routes_told();
    let is_link_local = |addr: IpAddr| match addr {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    for (index, interface) in config.interfaces.iter().enumerate() {
        let passes = |endpoint: &&Endpoint| {
            endpoint.interface == index
                && !forwarding.has(endpoint.addr)
                && !is_link_local(endpoint.addr)
                && interface.asks_in_program(endpoint, devices)
        };
        let passing: Vec<_> = endpoints.iter().filter(passes).collect();
        for (is_v4, family, setting, all) in [
            (true, "IPv4", "net.ipv4", "net.ipv4.ip_forward"),
            (false, "IPv6", "net.ipv6", "net.ipv6.conf.all.forwarding"),
        ] {
            if passing
                .iter()
                .any(|endpoint| endpoint.addr.is_ipv4() == is_v4)
            {
                let problem = format!(
                    "{setting}.conf.{LOOPBACK}.forwarding is 0, so the kernel tells the XDP program no routes: all queries over \
                     {family} that come by {} are left to the kernel's sockets (pass_route); set {all} to 1, or route_check to \
                     \"never\"",
                    interface.name
                );
                source.warn(&format!("interface[{index}].route_check"), problem);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Device;

    fn devices(forwarding: Forwarding) -> Devices {
        let device = |name: &str, index: u8, addresses: &[&str]| Device {
            name: name.into(),
            index: index.into(),
            mac: Some([2, 0, 0, 0, 0, index]),
            addresses: addresses
                .iter()
                .map(|address| address.parse().expect("an address"))
                .collect(),
            ..Device::default()
        };
        let mut all = vec![
            device("lo", 1, &["127.0.0.1", "::1"]),
            device("lan0", 2, &["192.0.2.1", "2001:db8::1", "fe80::1"]),
            device("lan1", 3, &["198.51.100.1", "fe80::2"]),
        ];
        all[0].forwarding = forwarding;
        all[2].is_strict = true;
        Devices(all)
    }

    fn told(sections: &str, forwarding: Forwarding) -> Vec<String> {
        let text = format!("{sections}[[upstream]]\nservers = [\"192.0.2.53\"]\n");
        let config = Config::parse("f", &text).expect("valid");
        let devices = devices(forwarding);
        let plan = config.plan(&devices);
        assert_eq!(plan.missing.faults(), []);
        let told = plan.doubts.faults().iter().map(|fault| {
            let told = fault.to_string();
            told.split(", so the kernel").next().map(str::to_owned)
        });
        told.flatten().collect()
    }

    #[test]
    fn where_the_kernel_tells_no_routes_the_sections_that_ask_it_are_told() {
        let on = |name: &str, more: &str| format!("[[interface]]\nname = \"{name}\"\n{more}\n");
        let always = "route_check = \"always\"";
        let [all, v6, v4, none] = [(true, true), (false, true), (true, false), (false, false)]
            .map(|(v4, v6)| Forwarding { v4, v6 });
        let v4_is_off = "net.ipv4.conf.lo.forwarding is 0";
        let v6_is_off = "net.ipv6.conf.lo.forwarding is 0";
        let at = |line: usize, what: &str| format!("f:{line}:1: interface.route_check: {what}");
        let lan0 = on("lan0", always);
        assert_eq!(told(&lan0, all), [""; 0]);
        assert_eq!(told(&lan0, v6), [at(3, v4_is_off)]);
        assert_eq!(told(&lan0, v4), [at(3, v6_is_off)]);
        assert_eq!(told(&lan0, none), [at(3, v4_is_off), at(3, v6_is_off)]);
        // IPv6 has a link-local address alone there.
        assert_eq!(told(&on("lan1", always), none), [at(3, v4_is_off)]);
        // Strict, or not.
        assert_eq!(told(&on("lan1", ""), none).len(), 1);
        assert_eq!(told(&on("lan0", ""), none), [""; 0]);
        for (name, more) in [
            ("lan0", "route_check = \"always\"\nxdp = \"off\""),
            ("lan1", "route_check = \"never\""),
            // No program is attached there.
            ("lo", always),
        ] {
            assert_eq!(told(&on(name, more), none), [""; 0], "{name} {more}");
        }
        let two = format!("{lan0}{}", on("lan1", always));
        assert_eq!(told(&two, v6), [at(3, v4_is_off), at(6, v4_is_off)]);
    }

    #[test]
    fn forwarding_is_read_by_family_and_a_family_that_is_not_there_is_none_that_is_off() {
        let read = |family: &str| {
            std::fs::read_to_string(format!("/proc/sys/net/{family}/conf/lo/forwarding"))
        };
        let found = Forwarding::of_routes();
        for (family, is_on) in [("ipv4", found.v4), ("ipv6", found.v6)] {
            let expected = read(family).map_or(true, |text| text == "1\n");
            assert_eq!(is_on, expected, "{family}");
        }
        assert_eq!(Forwarding::of("no-such-device"), Forwarding::default());
    }
}
