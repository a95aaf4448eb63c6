//! xdnsd: a DNS forwarder for routers on XDP and AF_XDP.

use std::path::Path;
use std::process::ExitCode;

use simple_logger::SimpleLogger;
use xdnsd::config::Config;
use xdnsd::{control, daemon, memory};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["run", file] => load(file).and_then(run),
        ["check", file] => load(file).map(drop),
        ["memory"] => {
            print!("{}", memory::report());
            Ok(())
        }
        ["stats", "--socket", path] => {
            control::ask(Path::new(path), "stats", &mut std::io::stdout())
                .map_err(|e| e.to_string())
        }
        _ => Err("usage: xdnsd run FILE | check FILE | memory | stats --socket PATH".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn load(file: &str) -> Result<Config, String> {
    Config::load(Path::new(file)).map_err(|errors| errors.to_string())
}

fn run(config: Config) -> Result<(), String> {
    SimpleLogger::new()
        .with_level(log::LevelFilter::Info)
        .init()
        .map_err(|error| error.to_string())?;
    daemon::run(config)
}
