use super::*;

#[test]
fn a_command_that_was_not_run_is_no_empty_answer() {
    let why = |error_output: &str, output: &str, end: &str| {
        let collected = Collected::default();
        collected.output.replace(output.into());
        collected.error_output.replace(error_output.into());
        let closed = Closed::ByPeer { reason: end.into() };
        failure(&End::<(), RoadError>::Closed(closed), &collected)
    };
    let missing = "exec: \"sh\": executable file not found in $PATH";
    let ruler = "\n----------ERROR-------\nUnable to start command: no\n\n";
    for (error_output, output, end, expected) in [
        ("", "ssh-ed25519 AAAA\n", "", None),
        ("", "", "", None),
        ("", "ssh-ed25519 AAAA\n", "Session terminated", None),
        // What a command writes to its standard error is output as well.
        ("", "cat: '/etc/ssh/ssh_host_*_key.pub': No such file or directory\n", "", None),
        (missing, "", "", Some(missing)),
        (missing, "half", "", Some(missing)),
        (ruler, "", ruler, Some("Unable to start command: no")),
        ("", "", ruler, Some("Unable to start command: no")),
    ] {
        assert_eq!(why(error_output, output, end).as_deref(), expected, "{error_output}{end}");
    }
}

#[test]
fn a_script_is_one_word_whatever_stands_in_it() {
    for script in ["cat /etc/ssh/*.pub", "for f in 'a b' \"$HOME\"; do echo $f\\n; done # x\ntrue", "''", ""]
    {
        let command = shell_command(script);
        // A shell splits words as the SSM agent does, but for what stands outside of quotes here:
        // nothing.
        let words = std::process::Command::new("sh")
            .args(["-c", &format!("printf '%s\\0' {command}")])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(words.stdout).unwrap(), format!("sh\0-c\0{script}\0"));
    }
}
