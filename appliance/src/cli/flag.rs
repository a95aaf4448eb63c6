//! The options that commands have.

/// An option of a command.
pub(super) struct Flag {
    pub name: &'static str,
    /// Placeholder of its value in the usage. Empty if it takes none.
    pub value: &'static str,
    pub may_repeat: bool,
}

pub(super) const USER: Flag = Flag {
    name: "--user",
    value: "NAME",
    may_repeat: false,
};
pub(super) const OFFLINE: Flag = Flag {
    name: "--offline",
    value: "",
    may_repeat: false,
};
pub(super) const ALLOW: Flag = Flag {
    name: "--allow",
    value: "FILE",
    may_repeat: true,
};
pub(super) const AT_SOCKET: Flag = Flag {
    name: "--socket",
    value: "PATH",
    may_repeat: false,
};

pub(super) const JSON: Flag = Flag {
    name: "--json",
    value: "",
    may_repeat: false,
};
pub(super) const PROMETHEUS: Flag = Flag {
    name: "--prometheus",
    value: "",
    may_repeat: false,
};
