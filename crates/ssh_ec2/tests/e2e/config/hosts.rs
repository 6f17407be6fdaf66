//! The hosts that the installed blocks match, and the other settings of users that they work with.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{install, own_directory, ssh_ec2_config, user_config};
use crate::harness::{HEALTHY, Sandbox, binary, files_below, is_root, run};

/// `ssh -G`, which prints the settings for a host.
fn settings(sandbox: &Sandbox, words: &[&str]) -> String {
    let mut ssh = sandbox.plain_command("ssh");
    ssh.arg("-G").arg("-F").arg(user_config(sandbox)).args(words);
    run(&mut ssh).success().text().to_owned()
}

fn is_ours(settings: &str) -> bool {
    settings.contains("proxycommand ")
}

fn has_one_time_key(settings: &str) -> bool {
    settings.contains("/agent/") && settings.contains("identityfile none\n")
}

#[test]
fn every_id_and_nothing_else_goes_to_the_instance() {
    let sandbox = Sandbox::start();
    install(&sandbox);
    for host in [
        "i-0a1b2c3d",
        "i-ffffffff",
        HEALTHY,
        "i-0A1B2C3D4E5F60718",
        "i-0123456789abcdef0",
        "i-0a1b2c3d.ec2",
        "i-robot.ec2",
        "web-1.eu-west-1.ec2",
        "mi-casa.ec2",
        "mi-database.us-west-2.ec2",
    ] {
        let settings = settings(&sandbox, &[host]);
        assert!(is_ours(&settings) && has_one_time_key(&settings), "{host}: {settings}");
    }
    for host in ["mi-0a1b2c3d4e5f60718", "mi-0a1b2c3d4e5f60718.ec2", "mi-0a1b2c3d4e5f60718.eu-west-1.ec2"] {
        let settings = settings(&sandbox, &[host]);
        assert!(is_ours(&settings) && !has_one_time_key(&settings), "{host}: {settings}");
    }
    let mut others: Vec<String> = [
        "i-robot",
        "i-mailserv",
        "i-MAILSERV",
        "i-",
        "mi-",
        "ec2",
        "myec2",
        "i-beacon.example.com",
        "i-aaaaaaaa.example",
        "i-0a1b2c3d4e5f60718.example",
        "mi-casa.lan",
        "mi-nas",
        "mi-database-server-1",
        "mi-database-server-1.lan",
        "xi-0a1b2c3d",
        "ami-0a1b2c3d4e5f60718",
    ]
    .map(str::to_owned)
    .to_vec();
    let digits = |count: usize| "0a1b2c3d4e5f607189".chars().cycle().take(count).collect::<String>();
    others.extend([6, 7, 9, 10, 16, 18].map(|count| format!("i-{}", digits(count))));
    others.extend([8, 16, 18].map(|count| format!("mi-{}", digits(count))));
    for letter in ('g'..='z').chain('G'..='Z').chain(['-', '_', '.']) {
        others.push(format!("i-0a1b{letter}c3d"));
        others.push(format!("i-{letter}a1b2c3d4e5f60718"));
        others.push(format!("mi-0a1b2c3d4e5f6071{letter}"));
    }
    for host in others {
        let settings = settings(&sandbox, &[&host]);
        assert!(!is_ours(&settings) && !settings.contains("ssh_ec2"), "{host}: {settings}");
    }
}

/// Settings that a user may have for other hosts.
const FOR_ALL_HOSTS: &str = "Host *
    IdentitiesOnly yes
    IdentityAgent /nonexistent
    IdentityFile /nonexistent
    StrictHostKeyChecking no
    UserKnownHostsFile /nonexistent
    KnownHostsCommand /nonexistent
    VerifyHostKeyDNS yes
    UpdateHostKeys yes
    CheckHostIP yes
    ProxyUseFdpass yes
    ProxyCommand /nonexistent
    ProxyJump nonexistent.example
";

#[test]
fn settings_for_all_hosts_break_neither_names_nor_aliases() {
    let sandbox = Sandbox::start();
    install(&sandbox);
    let mut config = fs::read_to_string(user_config(&sandbox)).unwrap();
    let alias = own_directory(&sandbox).join("alias").display().to_string();
    config.push_str(&format!(
        "\nHost web\n    HostName web-1.ec2\n    Include {alias}\n\
         Host short-*\n    User ec2-user\n    HostName %h.ec2\n    Include {alias}\n\
         Host by-id\n    HostName {HEALTHY}\n    User ec2-user\n    Include {alias}\n\
         Host node\n    HostName mi-0decaf00000000001.ec2\n    Include {alias}\n\
         Host elsewhere\n    HostName 192.0.2.9\n    Include {alias}\n{FOR_ALL_HOSTS}"
    ));
    fs::write(user_config(&sandbox), config).unwrap();
    for host in ["ec2-user@web", "by-id", "ec2-user@web-1.ec2", &sandbox.target()] {
        let mut ssh = sandbox.plain_command("ssh");
        let ended = run(ssh.arg("-F").arg(user_config(&sandbox)).args([host, "echo in"])).success();
        assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""), "{host}");
        let settings = settings(&sandbox, &[host]);
        for line in [
            "verifyhostkeydns false\n",
            "stricthostkeychecking true\n",
            "userknownhostsfile /dev/null\n",
            "identitiesonly no\n",
        ] {
            assert!(settings.contains(line), "{host}: {line:?} is not in {settings}");
        }
    }
    assert!(has_one_time_key(&settings(&sandbox, &["short-web"])));
    let node = settings(&sandbox, &["node"]);
    assert!(node.contains(" proxy ") && !has_one_time_key(&node), "{node}");
    let elsewhere = settings(&sandbox, &["elsewhere"]);
    assert!(!elsewhere.contains("ssh_ec2"), "{elsewhere}");
    sandbox.assert_tidy();
}

#[test]
fn the_doctor_reports_an_alias_that_ssh_reads_too_late() {
    let sandbox = Sandbox::start();
    let doctor = |aliases: &str| {
        let ssh_config = sandbox.directory().join("ssh_config");
        let blocks = run(sandbox.ssh_ec2().arg("config")).success();
        fs::write(sandbox.directory().join("config"), blocks.text()).unwrap();
        fs::write(&ssh_config, format!("{}\n{aliases}\n{FOR_ALL_HOSTS}", blocks.text())).unwrap();
        let ended = run(sandbox.ssh_ec2().args(["doctor", "ec2-user@web"])).success();
        let line = |name: &str| {
            let mut lines = ended.text().lines().skip_while(|line| !line.contains(name)).take(2);
            lines.next().unwrap().to_owned() + lines.next().unwrap_or_default()
        };
        assert!(line(" instance ").contains(HEALTHY), "{ended}");
        line(" ssh-config ")
    };
    let alias = "Host web\n    HostName web-1.ec2\n";
    let not_applied = doctor(alias);
    assert!(
        not_applied.starts_with("warning")
            && not_applied.contains("the installed blocks do not apply to the alias web")
            && not_applied.contains("/ssh_ec2/alias"),
        "{not_applied}"
    );
    let second_pass = doctor(&format!("{alias}Match final all\n"));
    assert!(second_pass.starts_with("warning") && second_pass.contains("ssh_ec2/alias"), "{second_pass}");
    let text =
        run(sandbox.ssh_ec2().arg("config")).success().text().replace("Host *.ec2", "Match host *.ec2");
    let included = sandbox.file("included");
    fs::write(&included, text.split("Host i-").next().unwrap().replace("*.ec2 !mi-", "*.ec2,!mi-")).unwrap();
    let well = doctor(&format!("{alias}    Include {}\n", included.display()));
    assert!(well.starts_with("ok ") && well.contains("for web"), "{well}");
}

// ---- blocks of an earlier version ----

#[test]
fn blocks_of_an_earlier_version_go_on_working() {
    let sandbox = Sandbox::start();
    let directory = own_directory(&sandbox);
    let text = include_str!("installed_by_0.1.0")
        .replace("PROGRAM", &binary().display().to_string())
        .replace("DIRECTORY", &directory.display().to_string());
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("config"), &text).unwrap();
    fs::write(user_config(&sandbox), format!("Include {}/config\n", directory.display())).unwrap();
    for host in [&*sandbox.target(), "ec2-user@web-1.ec2", "web-1.prod.ec2"] {
        let mut ssh = sandbox.plain_command("ssh");
        let ended = run(ssh.arg("-F").arg(user_config(&sandbox)).args([host, "echo in"])).success();
        assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""), "{host}");
    }
    sandbox.assert_tidy();
    assert_eq!(files_below(&directory.join("agent")), Vec::<std::path::PathBuf>::new());
    // The commands that the doctor names renew both parts.
    let renew = [
        "ssh_ec2 --region us-east-1 config --install --suffix prod.ec2 --user ec2-user",
        "ssh_ec2 config --install",
    ];
    fs::write(sandbox.directory().join("config"), &text).unwrap();
    fs::write(sandbox.directory().join("ssh_config"), &text).unwrap();
    let ended = run(sandbox.ssh_ec2().args(["doctor", &sandbox.target()])).success();
    let hint = format!("`{}` renews them", renew.join(" && "));
    assert!(ended.text().contains(&hint), "{hint:?} is not in {ended}");
    for command in renew {
        let words: Vec<_> = command.split(' ').skip(1).collect();
        run(sandbox.plain_command(&binary().display().to_string()).args(words)).success();
    }
    let renewed = fs::read_to_string(directory.join("config")).unwrap();
    assert!(!renewed.contains("--agent-socket") && renewed.contains("    User ec2-user\n"), "{renewed}");
    let ended = run(sandbox
        .plain_command("ssh")
        .arg("-F")
        .arg(user_config(&sandbox))
        .args(["web-1.prod.ec2", "true"]));
    ended.success();
}

// ---- the program ----

/// Homebrew, nix and others keep each version in a directory of its own.
#[test]
fn the_program_is_named_as_path_finds_it() {
    let sandbox = Sandbox::start();
    let (version, bin) = (sandbox.file("0.1.0"), sandbox.file("bin"));
    fs::create_dir(&version).unwrap();
    fs::create_dir(&bin).unwrap();
    let program = version.join("ssh_ec2");
    if fs::hard_link(binary(), &program).is_err() {
        fs::copy(binary(), &program).unwrap();
    }
    let link = bin.join("ssh_ec2");
    std::os::unix::fs::symlink(&program, &link).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let named = |called: &Path, path: &str| {
        let mut command = Command::new(called);
        command.arg("config").env_clear().env("HOME", sandbox.home()).env("PATH", path);
        let printed = run(command.current_dir(sandbox.scratch())).success().text().to_owned();
        let line = printed.lines().find_map(|line| line.trim_start().strip_prefix("ProxyCommand ")).unwrap();
        line.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(named(&link, &path), link.display().to_string());
    assert_eq!(named(&program, &path), link.display().to_string(), "the link in PATH leads to it");
    assert_eq!(named(&link, "/usr/bin:/bin"), link.display().to_string(), "as it was called");
    assert_eq!(named(Path::new("bin/ssh_ec2"), "bin:/usr/bin"), link.display().to_string(), "in full");
    assert_eq!(named(&program, "/usr/bin:/bin"), program.display().to_string());
    // A program of that name that is not ssh_ec2 does not count.
    fs::remove_file(&link).unwrap();
    fs::copy("/bin/true", &link).unwrap();
    assert_eq!(named(&program, &path), program.display().to_string());
}

// ---- the agent's socket ----

#[test]
fn a_long_name_gets_a_short_socket() {
    let sandbox = Sandbox::with_faults(&["name-size=200"]);
    install(&sandbox);
    let name = format!("web-2{}", "x".repeat(195));
    let host = format!("ec2-user@{name}.ec2");
    let mut ssh = sandbox.plain_command("ssh");
    let ended = run(ssh.arg("-F").arg(user_config(&sandbox)).args([&host, "echo in"])).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
    let wrapped = run(sandbox.ssh_ec2().args([&format!("ec2-user@{name}"), "echo in"])).success();
    assert_eq!((wrapped.text(), wrapped.stderr.as_str()), ("in\n", ""));
    sandbox.assert_tidy();
}

/// The proxy computes the same `%C` as ssh, whatever the host name consists of.
#[test]
fn ssh_and_the_proxy_agree_on_the_socket() {
    let sandbox = Sandbox::start();
    install(&sandbox);
    let mut config = fs::read_to_string(user_config(&sandbox)).unwrap();
    let alias = own_directory(&sandbox).join("alias");
    config.push_str(&format!("Host Alias\n    HostName WEB-1.ec2\n    Include {}\n", alias.display()));
    fs::write(user_config(&sandbox), config).unwrap();
    let connect = |host: &str, around: &[&str]| {
        let words =
            ["ssh", "-F", &user_config(&sandbox).display().to_string(), host, "echo in"].map(str::to_owned);
        let words: Vec<_> = around.iter().map(|word| (*word).to_owned()).chain(words).collect();
        let ended = run(sandbox.plain_command(&words[0]).args(&words[1..])).success();
        assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""), "{words:?}");
    };
    connect("ec2-user@i-0DECAF00000000001", &[]);
    connect("ec2-user@Alias", &[]);
    if is_root() {
        // The longest host name of a machine, and one with a domain.
        for name in ["h".repeat(64), "here.example.com".to_owned()] {
            let script = format!("hostname {name} && exec \"$0\" \"$@\"");
            connect("ec2-user@web-1.ec2", &["unshare", "--uts", "sh", "-c", &script]);
        }
    }
    sandbox.assert_tidy();
}

#[test]
fn the_local_region_works_below_a_long_directory() {
    let sandbox = Sandbox::start();
    let deep = sandbox.scratch().join("d".repeat(60));
    fs::create_dir(&deep).unwrap();
    let mut command = sandbox.plain_command(&binary().display().to_string());
    command.args(["sandbox", "--fault", "quick", "ssh", "-n", &sandbox.target(), "echo in"]);
    let ended = run(command.env("TMPDIR", &deep)).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
}

/// cron and su have no XDG_RUNTIME_DIR, and its files are deleted after the login.
#[test]
fn sockets_do_not_move_with_the_session() {
    let sandbox = Sandbox::start();
    let runtime = sandbox.file("runtime");
    fs::create_dir(&runtime).unwrap();
    let deep = sandbox.scratch().join("d".repeat(70));
    let print = |runtime: Option<&Path>| {
        let mut command = ssh_ec2_config(&sandbox, &[]);
        command.env("SSH_EC2_DIR", &deep).envs(runtime.map(|path| ("XDG_RUNTIME_DIR", path)));
        run(&mut command).success().text().to_owned()
    };
    let printed = print(None);
    assert_eq!(print(Some(&runtime)), printed);
    let user = rustix::process::getuid().as_raw();
    assert!(printed.contains(&format!("    IdentityAgent /tmp/ssh_ec2-{user}/%C\n")), "{printed}");
    assert!(printed.contains(&format!("--file {}/known_hosts", deep.display())), "{printed}");
    let config = sandbox.file("printed");
    fs::write(&config, &printed).unwrap();
    for runtime in [None, Some(&runtime)] {
        let mut ssh = sandbox.plain_command("ssh");
        ssh.env("SSH_EC2_DIR", &deep).envs(runtime.map(|path| ("XDG_RUNTIME_DIR", path)));
        let ended = run(ssh.arg("-F").arg(&config).args([&*sandbox.target(), "echo in"])).success();
        assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
    }
    assert_eq!(files_below(&runtime), Vec::<std::path::PathBuf>::new());
}
