//! xdnsd: a DNS forwarder for routers on XDP and AF_XDP.
//!
//! The only place that prints.

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xdnsd::cli::{self, Command, Tail};
use xdnsd::compile::reloader::PolicyReloader;
use xdnsd::compile::set::PolicySet;
use xdnsd::compile::{Notes, list_file, prefix_list};
use xdnsd::config::{
    Config, Devices, Endpoint, Fault, Imported, Plan, ResolvConf, import, reference,
};
use xdnsd::control::health::{self, Health};
use xdnsd::control::memory::{self, Capacities};
use xdnsd::control::metrics::not_taken;
use xdnsd::control::summary::{self, CounterSums};
use xdnsd::control::tail::{self, show::Filter};
use xdnsd::os::account;
use xdnsd::os::files::place;
use xdnsd::os::holder::{self, Protocol};
use xdnsd::os::{memory_limits, threads};
use xdnsd::text::json;
use xdnsd::{control, daemon, logging, text};
use xdnsd_abi::PREFIXES_MAX;

/// Exit status for a malformed command line.
const USAGE: u8 = 2;
/// Exit status of `run` for an invalid config file: a restart does not help (EX_CONFIG of sysexits.h).
const BAD_CONFIG: u8 = 78;
/// Exit status of `health` if there is no daemon, or if it cannot be asked.
const UNKNOWN: u8 = 3;

/// Interval between two requests for the shield's log: its ring is small.
const WATCH: Duration = Duration::from_millis(100);
/// Time between two readings of counters.
const LOOK: Duration = Duration::from_secs(1);

/// Why a command failed, and its exit status.
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
    threads::survive_file_limit();
    if let Err(problem) = threads::widen_first_stack() {
        logging::print(&problem);
        return ExitCode::FAILURE;
    }
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
            if !problem.is_empty() {
                logging::print(&problem);
            }
            logging::finish();
            ExitCode::from(status)
        }
    }
}

fn carry_out(command: Command) -> Result<(), Ending> {
    let done = match command {
        Command::Run { file, user } => return run(&file, user.as_deref()),
        Command::Check {
            file,
            offline,
            json,
            user,
        } => return check(&file, offline, json, user.as_deref()),
        Command::Health(file) => return health(&file),
        Command::Web(file) => return web(&file),
        Command::Ask { request, socket } => {
            check_request(&socket, &request)?;
            let asked = control::ask(&socket, &request, &mut io::stdout().lock());
            asked.or_else(unless_reader_left)
        }
        Command::Stats { socket } => {
            check_request(&socket, "stats")?;
            stats(&socket)
        }
        Command::Log { socket, json } => watch(&socket, json),
        Command::Tail { socket, tail } => {
            check_request(&socket, "stats")?;
            tail::run(&socket, &options(tail), &mut io::stdout().lock())
        }
        Command::Top { socket, once } => {
            check_request(&socket, "stats")?;
            tail::top::run(&socket, once, &mut io::stdout().lock())
        }
        Command::CompileLists(arguments) => {
            let report = list_file::compile_command(&arguments);
            report
                .map_err(|problem| problem.to_string())
                .and_then(|report| print(&text::lines(&format!("{report}\n"))))
        }
        Command::Import(files) => import_files(&files),
        Command::Reference => print(&reference()),
        Command::Memory { file, json } => show_memory(file.as_deref(), json),
        Command::Version => print(concat!("xdnsd ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Help(text) => print(&text),
    };
    Ok(done?)
}

/// Prints the memory budget of a config, or of one that says nothing of it.
fn show_memory(file: Option<&Path>, is_json: bool) -> Result<(), String> {
    let config = file.map(Config::load).transpose();
    let config = config.map_err(|errors| errors.to_string())?;
    let of = config.as_ref().map_or(Capacities::DEFAULT, Capacities::of);
    match is_json {
        true => print(&format!("{}\n", json::line(&memory::json(&of)))),
        false => print(&memory::report(&of)),
    }
}

/// Prints dnsmasq's configuration as one of ours, and what of it has no key.
fn import_files(files: &[PathBuf]) -> Result<(), String> {
    let devices = Devices::read().map_err(|error| error.to_string())?;
    let Imported { config, listed } = import(files, &devices)?;
    print(&config)?;
    for line in listed {
        logging::print(&text::line(&line));
    }
    Ok(())
}

/// Starts the log, then reads the config, so that errors in the config are logged without blocking.
fn configure(file: &Path) -> Result<Config, Ending> {
    logging::start().map_err(|error| format!("log: {error}"))?;
    let config = Config::load(file).map_err(|errors| Ending {
        status: BAD_CONFIG,
        problem: errors.to_string(),
    })?;
    config.set_log();
    Ok(config)
}

fn run(file: &Path, user: Option<&str>) -> Result<(), Ending> {
    user.map(account::change_to).transpose()?;
    memory_limits::check(Capacities::DEFAULT.budget() as u64)?;
    let config = configure(file)?;
    if let Some(fault) = memory::fault(&config) {
        return Err(Ending {
            status: BAD_CONFIG,
            problem: fault.to_string(),
        });
    }
    memory_limits::check(Capacities::of(&config).budget() as u64)?;
    for warning in config.warnings() {
        log::warn!("{warning}");
    }
    // Snapshot and control socket are reported when they are opened; this file may not be needed for long.
    let state = |(key, _): &(&str, _)| *key == "shield.state_file";
    for (key, obstacle) in daemon::obstacles(&config).into_iter().filter(state) {
        let fault = config.fault(key, obstacle.what, "");
        log::warn!("{fault}");
    }
    daemon::run(file, config)?;
    logging::finish();
    Ok(())
}

fn web(file: &Path) -> Result<(), Ending> {
    Ok(control::web::run(&configure(file)?)?)
}

fn health(file: &Path) -> Result<(), Ending> {
    let unknown = |problem: String| Ending {
        status: UNKNOWN,
        problem,
    };
    let config = Config::load(file).map_err(|errors| unknown(errors.to_string()))?;
    match health::ask(&config) {
        Health::Well => Ok(print(&format!(
            "{}\n{}",
            Health::Well,
            health::not_taken(&config)
        ))?),
        Health::Hangs(problem) => Err(problem.into()),
        Health::Unknown(problem) => Err(unknown(problem)),
    }
}

/// Rejects a malformed request before connecting: whether a daemon runs does not matter.
fn check_request(socket: &Path, request: &str) -> Result<(), Ending> {
    let checked = control::check_path(socket)
        .and_then(|()| control::check_length(request))
        .and_then(|()| control::check(request));
    checked.map_err(|problem| Ending {
        status: USAGE,
        problem,
    })
}

/// Prints counters for people, from two readings a second apart, and the upstream servers.
fn stats(socket: &Path) -> Result<(), String> {
    let ask = |request: &str| {
        let mut answer = Vec::new();
        let asked = control::ask(socket, request, &mut answer);
        asked.map_err(|error| error.to_string())?;
        Ok::<_, String>(String::from_utf8_lossy(&answer).into_owned())
    };
    let (earlier, since) = (ask("stats")?, Instant::now());
    thread::sleep(LOOK);
    let (later, elapsed) = (ask("stats")?, since.elapsed());
    let table = summary::table(
        &CounterSums::of(&earlier),
        &CounterSums::of(&later),
        elapsed,
    );
    let not_taken = not_taken::in_words(&later);
    print(&format!("{table}{not_taken}\n{}", ask("upstreams")?))
}

/// Permitted values for a path at which the process makes a file or a socket.
const OWN_PATH: &str = "the path of a file in a folder that xdnsd may write to, or \"\" for none";

/// Requests the shield's log repeatedly, until it is switched off, the reader has left, or the daemon is gone.
fn watch(socket: &Path, is_json: bool) -> Result<(), String> {
    let request = if is_json {
        "json shield log"
    } else {
        "shield log"
    };
    loop {
        let mut answer = Vec::new();
        let asked = control::ask(socket, request, &mut answer);
        asked.map_err(|error| error.to_string())?;
        match io::stdout().write_all(&answer) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|error| error.to_string())?,
        }
        thread::sleep(WATCH);
    }
}

/// Converts the command line options.
fn options(tail: Tail) -> tail::TailOptions {
    let Tail {
        client,
        name,
        blocked,
        json,
        log,
        dnstap,
        pcap,
    } = tail;
    tail::TailOptions {
        filter: Filter {
            client,
            name,
            is_blocked: blocked,
        },
        is_json: json,
        log,
        dnstap,
        pcap,
    }
}

/// Findings of `check`.
#[derive(Default)]
struct Checked {
    warnings: Vec<Fault>,
    faults: Vec<Fault>,
    /// Other problems, in words.
    problems: Vec<String>,
    notes: Vec<String>,
    /// Files that were read, with a summary each.
    read: Vec<String>,
    /// True if permissions count, because `run` would have the same.
    is_account: bool,
}

fn check(file: &Path, offline: bool, is_json: bool, user: Option<&str>) -> Result<(), Ending> {
    user.map(account::change_to).transpose()?;
    let mut checked = Checked {
        is_account: user.is_some() || account::is_root(),
        ..Checked::default()
    };
    checked.check(file, offline)?;
    let problem = checked.problem();
    if is_json {
        print(&format!("{}\n", json::line(&checked.json(file))))?;
        // Already printed as JSON.
        return problem.map_or(Ok(()), |_| Err(Ending::from(String::new())));
    }
    for warning in &checked.warnings {
        logging::print(&format!("warning: {warning}"));
    }
    for note in &checked.notes {
        logging::print(&text::line(&format!("note: {note}")));
    }
    for read in &checked.read {
        print(&format!("{}\n", text::line(read)))?;
    }
    problem.map_or(Ok(()), Err)?;
    Ok(print(&format!("{}: valid\n", text::path(file)))?)
}

impl Checked {
    /// A missing file that the config names is only noted: it may come later.
    fn check(&mut self, file: &Path, offline: bool) -> Result<(), String> {
        let config = match Config::load(file) {
            Ok(config) => config,
            Err(errors) => {
                self.faults.extend_from_slice(errors.faults());
                return Ok(());
            }
        };
        self.warnings.extend_from_slice(config.warnings());
        self.faults.extend(memory::fault(&config));
        let mut notes = Notes::default();
        if offline {
            let built = PolicySet::build(&config.policy_without_files(), None, &mut notes);
            self.problems
                .extend(built.err().map(|problem| problem.to_string()));
        } else {
            let devices = Devices::read().map_err(|error| error.to_string())?;
            let files = self.read_servers(&config);
            let found: Vec<_> = files.iter().map(|file| file.servers.clone()).collect();
            let plan = config.plan_with(&devices, &found);
            for left_out in &plan.left_out {
                let file = files.get(left_out.group);
                self.notes
                    .extend(file.map(|file| file.told(left_out).to_string()));
            }
            self.warnings.extend_from_slice(plan.doubts.faults());
            self.faults.extend_from_slice(plan.missing.faults());
            self.check_addresses(&config, &plan);
            self.check_places(&config);
            let prefixes =
                prefix_list::read(&config.prefixes(), PREFIXES_MAX as usize, |_| Vec::new());
            self.notes.extend(prefixes.in_words());
            let doubts = prefixes.doubts.iter().map(ToString::to_string);
            self.notes.extend(doubts);
            match PolicyReloader::start(config.policy(), None) {
                Ok((_, started)) => notes = started.notes,
                Err(problem) => self.problems.push(problem.to_string()),
            }
        }
        let problems = [&notes.failures, &notes.doubts, &notes.first];
        let problems = problems.into_iter().flatten().map(ToString::to_string);
        self.notes.extend(problems);
        self.read.extend(notes.told);
        Ok(())
    }

    /// The files that name servers, by the groups of the config.
    fn read_servers(&mut self, config: &Config) -> Vec<ResolvConf> {
        let files = config.upstreams.iter();
        let files = files.map(|group| group.resolv_file.as_deref());
        let files: Vec<_> = files
            .map(|path| path.map(|path| (path, ResolvConf::read(path))))
            .collect();
        let found = files.into_iter().map(|file| match file {
            None => ResolvConf::default(),
            Some((path, Ok(found))) => {
                let count = found.servers.len();
                self.read
                    .push(format!("{}: servers: {count}", path.display()));
                self.notes
                    .extend(found.notes.iter().map(ToString::to_string));
                found
            }
            Some((_, Err(problem))) => {
                self.notes.push(problem.to_string());
                ResolvConf::default()
            }
        });
        found.collect()
    }

    /// Checks that the addresses can be bound, and names their holders.
    fn check_addresses(&mut self, config: &Config, plan: &Plan) {
        let addresses = plan.endpoints.iter().map(Endpoint::socket_addr);
        let both = |address| [(Protocol::Udp, address), (Protocol::Tcp, address)];
        let of_web = self.check_web(config, plan).into_iter();
        let of_web = of_web.map(|address| (Protocol::Tcp, address));
        let obstacle = |(protocol, address)| holder::obstacle(protocol, address);
        let all = addresses.flat_map(both).chain(of_web);
        for obstacle in all.filter_map(obstacle) {
            // A capability that the serving account may have.
            if obstacle.is_right() {
                self.notes.push(obstacle.what);
            } else {
                self.problems.push(obstacle.what);
            }
        }
        let addresses = plan.endpoints.iter().map(Endpoint::socket_addr);
        let sharers = addresses.filter_map(|address| holder::sharer(Protocol::Udp, address));
        self.notes.extend(sharers);
    }

    /// Checks that no address of `web.listen` is one of this server's. The others.
    fn check_web(&mut self, config: &Config, plan: &Plan) -> Vec<SocketAddr> {
        let (mut free, web) = (Vec::new(), &config.web.listen);
        for (index, address) in web.iter().map(|address| address.0).enumerate() {
            let is_ours = |end: &&Endpoint| {
                let is_any = address.ip().is_unspecified() && address.is_ipv6();
                let is_any = is_any || address.ip().is_unspecified() && end.addr.is_ipv4();
                end.port == address.port() && (is_any || end.addr == address.ip())
            };
            let Some(end) = plan.endpoints.iter().find(is_ours) else {
                free.push(address);
                continue;
            };
            let problem = format!("TCP {} is served by this server itself", end.socket_addr());
            let key = format!("web.listen[{index}]");
            let fault = config.fault(&key, problem, "another port");
            self.faults.push(fault);
        }
        free
    }

    /// Checks that the process can make its files and its socket. A permission that this account lacks is only noted if another
    /// account may serve.
    fn check_places(&mut self, config: &Config) {
        for (key, obstacle) in daemon::obstacles(config) {
            let is_right = obstacle.is_right();
            let mut fault = config.fault(key, obstacle.what, OWN_PATH);
            if is_right && !self.is_account {
                fault.allowed.clear();
                self.notes.push(fault.to_string());
            } else {
                self.faults.push(fault);
            }
        }
        self.faults.sort_by_key(|fault| fault.position);
        let doubt = daemon::doubt(config);
        let doubt = doubt.map(|doubt| config.fault("cache.snapshot", doubt.what, ""));
        self.warnings.extend(doubt);
        let doubt = daemon::group_doubt(config);
        let doubt = doubt.map(|what| config.fault("control.group", what, ""));
        self.warnings.extend(doubt);
        let own = [
            &config.cache.snapshot,
            &config.control.socket,
            &config.shield.state_file,
        ];
        let own = own.into_iter().filter_map(|path| path.as_deref());
        self.notes.extend(own.filter_map(place::far_folder));
    }

    /// All problems, one per line.
    fn problem(&self) -> Option<Ending> {
        let faults = self.faults.iter().map(ToString::to_string);
        let lines: Vec<String> = faults.chain(self.problems.iter().cloned()).collect();
        (!lines.is_empty()).then(|| lines.join("\n").into())
    }

    fn json(&self, file: &Path) -> Value {
        let fault = |fault: &Fault| {
            json!({
                "file": fault.file,
                "line": fault.position.map(|position| position.line),
                "column": fault.position.map(|position| position.column),
                "key": fault.key,
                "problem": fault.problem,
                "allowed": fault.allowed,
            })
        };
        let in_words = |problem: &String| json!({ "file": text::path(file), "problem": problem });
        let faults = self.faults.iter().map(fault);
        let faults = faults.chain(self.problems.iter().map(in_words));
        let faults: Vec<Value> = faults.collect();
        json!({
            "file": text::path(file),
            "valid": faults.is_empty(),
            "faults": faults,
            "warnings": self.warnings.iter().map(fault).collect::<Value>(),
            "notes": self.notes,
            "read": self.read,
        })
    }
}

fn print(text: &str) -> Result<(), String> {
    io::stdout()
        .write_all(text.as_bytes())
        .or_else(unless_reader_left)
}

/// A reader such as head(1) that leaves early is no failure.
fn unless_reader_left(error: io::Error) -> Result<(), String> {
    if error.kind() == ErrorKind::BrokenPipe {
        Ok(())
    } else {
        Err(error.to_string())
    }
}
