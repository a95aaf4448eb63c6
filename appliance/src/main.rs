//! xdnsd: a DNS forwarder for routers on XDP and AF_XDP.
//!
//! The one place that prints.

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use xdnsd::cli::{self, Command};
use xdnsd::compile::reloader::PolicyReloader;
use xdnsd::compile::set::PolicySet;
use xdnsd::compile::{Notes, list_file, prefix_list};
use xdnsd::config::{Config, Devices, Endpoint, Plan, reference};
use xdnsd::control::health::{self, Health};
use xdnsd::control::memory;
use xdnsd::os::account;
use xdnsd::os::holder::{self, Protocol};
use xdnsd::store::Store;
use xdnsd::{control, daemon, logging, text};

/// Exit status where the words are no command.
const USAGE: u8 = 2;
/// Exit status of `run` where the config file is wrong: to start it again does not help (EX_CONFIG of sysexits.h).
const BAD_CONFIG: u8 = 78;
/// Exit status of `health` where nobody is there, or nobody can be asked.
const UNKNOWN: u8 = 3;

/// Why a command failed, and the exit status that says so.
struct Ending {
    status: u8,
    problem: String,
}

impl From<String> for Ending {
    fn from(problem: String) -> Self {
        Self { status: 1, problem }
    }
}

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(problem) => {
            logging::print(&problem);
            return ExitCode::from(USAGE);
        }
    };
    match carry_out(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ending { status, problem }) => {
            logging::print(&problem);
            logging::finish();
            ExitCode::from(status)
        }
    }
}

fn carry_out(command: Command) -> Result<(), Ending> {
    let done = match command {
        Command::Run { file, user } => return run(&file, user.as_deref()),
        Command::Check { file, offline } => check(&file, offline),
        Command::Health(file) => return health(&file),
        Command::Ask { request, socket } => {
            let asked = control::ask(&socket, &request, &mut io::stdout().lock());
            asked.or_else(unless_reader_left)
        }
        Command::CompileLists(arguments) => {
            let report = list_file::compile_command(&arguments);
            report
                .map_err(|problem| problem.to_string())
                .and_then(|report| print(&text::lines(&format!("{report}\n"))))
        }
        Command::Reference => print(&reference()),
        Command::Memory => print(&memory::report()),
        Command::Version => print(concat!("xdnsd ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Help(text) => print(&text),
    };
    Ok(done?)
}

fn run(file: &Path, user: Option<&str>) -> Result<(), Ending> {
    user.map(account::change_to).transpose()?;
    // Before the config is read: what is wrong with it has to be said without waiting for anybody.
    logging::start().map_err(|error| format!("log: {error}"))?;
    let config = Config::load(file).map_err(|errors| Ending {
        status: BAD_CONFIG,
        problem: errors.to_string(),
    })?;
    config.set_log();
    for warning in config.warnings() {
        log::warn!("{warning}");
    }
    daemon::run(file, config)?;
    logging::finish();
    Ok(())
}

fn health(file: &Path) -> Result<(), Ending> {
    let unknown = |problem: String| Ending {
        status: UNKNOWN,
        problem,
    };
    let config = Config::load(file).map_err(|errors| unknown(errors.to_string()))?;
    match health::ask(&config) {
        Health::Well => Ok(print(&format!("{}\n", Health::Well))?),
        Health::Hangs(problem) => Err(problem.into()),
        Health::Unknown(problem) => Err(unknown(problem)),
    }
}

/// A file that the config names and that is not there is worth a word, and nothing more: it may come later.
fn check(file: &Path, offline: bool) -> Result<(), String> {
    let config = Config::load(file).map_err(|errors| errors.to_string())?;
    for warning in config.warnings() {
        logging::print(&format!("warning: {warning}"));
    }
    let mut notes = Notes::default();
    if offline {
        let built = PolicySet::build(&config.policy_without_files(), None, &mut notes);
        built.map_err(|problem| problem.to_string())?;
    } else {
        let devices = Devices::read().map_err(|error| error.to_string())?;
        let plan = config.plan(&devices);
        if !plan.missing.faults().is_empty() {
            return Err(plan.missing.to_string());
        }
        free_addresses(&plan)?;
        let snapshot = config.cache.snapshot.as_deref();
        let store = snapshot.map(|path| Store::new(path, config.cache.stale_max_ttl));
        if let Some(problem) = store.and_then(|store| store.folder_problem()) {
            logging::print(&text::line(&format!("note: cache.snapshot: {problem}")));
        }
        let prefixes = prefix_list::read(&config.prefixes());
        let found = prefixes.problems.iter().map(ToString::to_string);
        let problems: Vec<String> = found.collect();
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        let started = PolicyReloader::start(config.policy(), None);
        notes = started.map_err(|problem| problem.to_string())?.1.notes;
    }
    for problem in notes
        .failures
        .iter()
        .chain(&notes.doubts)
        .chain(&notes.first)
    {
        logging::print(&text::line(&format!("note: {problem}")));
    }
    for told in &notes.told {
        print(&format!("{}\n", text::line(told)))?;
    }
    print(&format!("{}: valid\n", text::path(file)))
}

/// Whether the addresses can be had: who has one of them is named.
fn free_addresses(plan: &Plan) -> Result<(), String> {
    let addresses = plan.endpoints.iter().map(Endpoint::socket_addr);
    let both = |address| [(Protocol::Udp, address), (Protocol::Tcp, address)];
    let obstacle = |(protocol, address)| holder::obstacle(protocol, address);
    let obstacles: Vec<String> = addresses.flat_map(both).filter_map(obstacle).collect();
    if obstacles.is_empty() {
        Ok(())
    } else {
        Err(obstacles.join("\n"))
    }
}

fn print(text: &str) -> Result<(), String> {
    io::stdout()
        .write_all(text.as_bytes())
        .or_else(unless_reader_left)
}

/// A reader such as head(1) that has seen enough is no failure.
fn unless_reader_left(error: io::Error) -> Result<(), String> {
    if error.kind() == ErrorKind::BrokenPipe {
        Ok(())
    } else {
        Err(error.to_string())
    }
}
