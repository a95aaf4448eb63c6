//! The container recipe, as far as it goes without a container runtime: the root that it makes, with its own command and no other
//! rights than those that it names, in the lab's router.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::workspace;
use xdnsd_lab::lab::{LAN, LAN_V4, Lab, Spec, UPSTREAM_V4};
use xdnsd_lab::nsd::Upstream;
use xdnsd_lab::process::{Process, output_of};

const FOLDER: &str = "appliance/container";
/// Time for the server to be ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a runtime does: $1 is the root, $2 the rights that remain, the rest is the command. chroot(8) needs one more itself.
const RUN: &str = r#"set -eu
root=$1 rights=$2
shift 2
mkdir -p "$root/proc" "$root/sys" "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -o rbind /dev "$root/dev"
exec setpriv --bounding-set "-all,$rights,+sys_chroot" --inh-caps -all chroot "$root" "$@"
"#;

/// Makes the root with the static `server`, and asks it.
pub fn try_out(server: &Path) -> Result<()> {
    let folder = workspace::root().join(FOLDER);
    let recipe = fs::read_to_string(folder.join("Containerfile")).context("the recipe")?;
    let recipe = Recipe::read(&recipe)?;
    let root = workspace::logs().join("container");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    output_of(Command::new(folder.join("assemble")).arg(server).arg(&root))?;
    let lab = Lab::up(&Spec::default())?;
    let zones = root.with_extension("zones");
    fs::create_dir_all(&zones).with_context(|| format!("create {}", zones.display()))?;
    let _upstream = Upstream::start(&lab, &zones)?;
    let config = format!(
        "[[interface]]\nname = {LAN:?}\nxdp = \"native\"\n[[upstream]]\nservers = [\"{UPSTREAM_V4}\"]\n\
         [cache]\nsnapshot = \"/var/lib/xdnsd/cache\"\n"
    );
    // A volume with the configuration.
    fs::write(root.join("etc/xdnsd/xdnsd.toml"), config).context("write the configuration")?;
    let mut process = Process::spawn(
        recipe.run(&lab, &root, &recipe.command),
        &root.with_extension("log"),
    )?;
    process.wait_for_log("ready", PATIENCE)?;
    let mut dig = lab.client.command("dig");
    dig.args([&format!("@{LAN_V4}"), "+short", "www.lab.test"]);
    let answer = output_of(&mut dig)?;
    ensure!(
        !answer.trim().is_empty(),
        "no answer; its log:\n{}",
        process.log()
    );
    let health = output_of(&mut recipe.run(&lab, &root, &recipe.health));
    health.with_context(|| process.log())?;
    let log = process.log();
    let faults: Vec<_> = log
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .collect();
    ensure!(faults.is_empty(), "{faults:#?}");
    println!("the container's root serves with {}", recipe.rights);
    Ok(())
}

/// What matters of a Containerfile for running it.
struct Recipe {
    /// Capabilities for setpriv(1), from the command line in the comment.
    rights: String,
    command: Vec<String>,
    health: Vec<String>,
}

impl Recipe {
    fn read(text: &str) -> Result<Self> {
        let rights = text.split("--cap-add=").nth(1).context("--cap-add")?;
        let rights = rights.split_whitespace().next().unwrap_or_default();
        let words = |start: &str| -> Result<Vec<String>> {
            let mut lines = text.lines().filter(|line| line.starts_with(start));
            let line = lines.next().with_context(|| format!("no {start}"))?;
            let list = line
                .find('[')
                .map(|at| &line[at..])
                .context("a list of words")?;
            // JSON's lists of strings are TOML's as well.
            let parsed: toml::Table = toml::from_str(&format!("words = {list}"))?;
            let words = parsed["words"].as_array().context("a list of words")?;
            let words = words.iter().filter_map(|word| word.as_str());
            Ok(words.map(str::to_owned).collect())
        };
        Ok(Self {
            rights: rights
                .split(',')
                .map(|right| format!("+{right}"))
                .collect::<Vec<_>>()
                .join(","),
            command: [words("ENTRYPOINT")?, words("CMD")?].concat(),
            health: words("HEALTHCHECK")?,
        })
    }

    /// `words` in the root, as its runtime would run them.
    fn run(&self, lab: &Lab, root: &Path, words: &[String]) -> Command {
        let mut command = lab.router.command("sh");
        command.args(["-c", RUN, "sh"]).arg(root).arg(&self.rights);
        command.args(words);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::Recipe;

    #[test]
    fn the_recipe_says_what_is_run_with_which_rights() {
        let recipe = Recipe::read(include_str!(
            "../../../../appliance/container/Containerfile"
        ));
        let recipe = recipe.expect("a recipe");
        assert_eq!(recipe.command[..2], ["/usr/bin/xdnsd", "run"]);
        assert_eq!(recipe.health[..2], ["/usr/bin/xdnsd", "health"]);
        assert!(
            recipe.rights.starts_with("+net_admin,+net_raw,"),
            "{}",
            recipe.rights
        );
        assert!(Recipe::read("FROM scratch\n").is_err());
    }
}
