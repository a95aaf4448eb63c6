//! bash completion of `xdnsd`: commands, their options, files.

use std::fmt::Write as _;

use super::usage::Help;

/// The completion function, without the table of commands. After an option with a value, and where no option begins, it offers
/// files.
const FUNCTION: &str = r#"
_xdnsd() {
    local current=${COMP_WORDS[COMP_CWORD]} typed="" name rest word
    local -A words=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ $word == -* ]] || typed+="$word "
    done
    COMPREPLY=()
    for name in "${!_xdnsd_options[@]}"; do
        if [[ $typed == "$name "* ]]; then
            if [[ $current == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "${_xdnsd_options[$name]}" -- "$current")
            fi
            return
        fi
        if [[ $name == "$typed"* ]]; then
            rest=${name#"$typed"}
            words[${rest%% *}]=1
        fi
    done
    mapfile -t COMPREPLY < <(compgen -W "${!words[*]}" -- "$current")
}
complete -o default -F _xdnsd xdnsd
"#;

/// The script.
pub fn bash(help: &Help) -> String {
    let mut script =
        String::from("# Completion of xdnsd for bash.\n\ndeclare -gA _xdnsd_options=(\n");
    for command in &help.commands {
        let options = command.options().join(" ");
        // Memory takes everything.
        let _ = writeln!(script, "    [\"{}\"]=\"{options}\"", command.name);
    }
    script + ")\n" + FUNCTION
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::package::usage;
    use xdnsd_lab::process::output_of;

    /// bash's completions for these words, the last of which is being typed.
    fn offered(words: &[&str]) -> Vec<String> {
        let script = bash(&usage::tests::help())
            + "COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _xdnsd; printf '%s\\n' \"${COMPREPLY[@]}\"\n";
        let mut bash = Command::new("bash");
        bash.args(["-euc", &script, "bash", "xdnsd"]).args(words);
        let mut offered: Vec<String> = output_of(&mut bash)
            .expect("bash")
            .lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        offered.sort();
        offered
    }

    #[test]
    fn words_of_commands_and_their_options_are_offered() {
        assert_eq!(offered(&[""]), ["cache", "run", "top"]);
        assert_eq!(offered(&["c"]), ["cache"]);
        assert_eq!(offered(&["cache", ""]), ["dump"]);
        assert_eq!(offered(&["cache", "dump", "--"]), ["--json", "--socket"]);
        assert_eq!(offered(&["cache", "dump", "--j"]), ["--json"]);
        assert_eq!(offered(&["run", "--"]), ["--user"]);
        assert_eq!(offered(&["run", "--user", "a", "/et"]), [""; 0], "files");
        assert_eq!(offered(&["walk", ""]), [""; 0]);
    }
}
