//! What each XDP program does, or why it does not. Ports of bridges are shown under the name of their bridge.

use super::exposition::Exposition;
use super::{PortState, ProgramCounters, ProgramReading, Reading};

impl ProgramCounters {
    /// Name of the device that it is attached to: `lan0`, `br-lan/lan1`. `None` if its place is free.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        match &self.port {
            None => Some(self.interface.clone()),
            Some(_) => self.port().map(|(shown, _)| shown),
        }
    }

    /// The port that has its place.
    pub(super) fn port(&self) -> Option<PortState> {
        let (name, why_not) = self.port.as_ref()?()?;
        Some((format!("{}/{name}", self.interface), why_not))
    }
}

impl Reading {
    pub(super) fn reason_families(&self, out: &mut dyn Exposition) {
        self.port_family(out);
        let help = "Whether the XDP program answers SYNs to guarded ports with cookies, and why not: off, calm, answers_lost, \
                    sysctl, kernel";
        let cookies = |program: &'_ ProgramReading| program.no_syn_cookies;
        Self::reason_family(out, "syn_cookies", help, self.reasons(cookies));
        let help = "Whether the XDP program answers hot names, and why not: off, kernel, device, answers_lost";
        let tier0 = |program: &'_ ProgramReading| program.no_tier0;
        Self::reason_family(out, "tier0", help, self.reasons(tier0));
        let help = "Whether the XDP program stands in front of hosts behind the interface, and why not: no_program, kernel, \
                    answers_lost, calm";
        let protects = self.protects.iter();
        let protects = protects.map(|(interface, reason)| (interface.as_str(), *reason));
        Self::reason_family(out, "protect", help, protects);
    }

    /// Writes for each port whether its program serves, or why not.
    fn port_family(&self, out: &mut dyn Exposition) {
        let help = "Whether the XDP program on a port of a bridge serves, and why the kernel's sockets do: bridge_down, closed, locked, \
                    vlan, off, no_seat, no_program, no_socket";
        let ports = self.ports.iter();
        let ports = ports.map(|(port, reason)| (port.as_str(), *reason));
        Self::reason_family(out, "bridge_port", help, ports);
    }

    /// Values of each program that come with a reason.
    fn reasons(
        &self,
        reason: impl Fn(&ProgramReading) -> &'static str,
    ) -> impl Iterator<Item = (&str, &'static str)> {
        let programs = self.programs.iter();
        programs.map(move |program| (program.interface.as_str(), reason(program)))
    }

    /// Writes a family of such values.
    fn reason_family<'r>(
        out: &mut dyn Exposition,
        name: &str,
        help: &str,
        reasons: impl Iterator<Item = (&'r str, &'static str)>,
    ) {
        out.family(name, help, "gauge");
        for (interface, reason) in reasons {
            let labels = [("interface", interface), ("reason", reason)];
            let labels = &labels[..labels.len() - usize::from(reason.is_empty())];
            out.sample(name, labels, reason.is_empty().into());
        }
    }
}
