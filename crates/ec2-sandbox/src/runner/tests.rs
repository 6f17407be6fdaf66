use std::os::unix::process::ExitStatusExt;

use super::*;
use crate::region::Options;

async fn workspace() -> (Region, Workspace) {
    let region = Region::start(Options::default()).await.unwrap();
    let workspace = Workspace::new(&region, |directory| format!("# {}\n", directory.display())).unwrap();
    (region, workspace)
}

/// Runs a script and returns what it writes to the file `$OUT`.
async fn output(workspace: &mut Workspace, script: &str) -> String {
    let file = workspace.directory().join("out");
    workspace.set("OUT", &file);
    let status = workspace.run(&["sh".into(), "-c".into(), script.into()]).await.unwrap();
    assert!(status.success(), "{status}");
    fs::read_to_string(file).unwrap()
}

#[tokio::test]
async fn a_command_finds_the_region_and_our_ssh() {
    let (region, mut workspace) = workspace().await;
    let script = "echo \"$AWS_ENDPOINT_URL $(command -v ssh)\" > \"$OUT\"";
    let own = workspace.directory().join("bin/ssh");
    assert_eq!(output(&mut workspace, script).await, format!("{} {}\n", region.endpoint(), own.display()));
}

#[test]
fn variables_that_lead_past_the_region_are_dropped() {
    for name in ["AWS_PROFILE", "AWS_ENDPOINT_URL_SSM", "GIT_SSH_COMMAND", "RSYNC_RSH"] {
        assert!(leads_elsewhere(name.as_ref()), "{name}");
    }
    for name in ["PATH", "HOME", "GIT_DIR", "SSH_AUTH_SOCK"] {
        assert!(!leads_elsewhere(name.as_ref()), "{name}");
    }
}

#[tokio::test]
async fn the_real_ssh_reads_our_config() {
    let region = Region::start(Options::default()).await.unwrap();
    let config = "Host i-*\n  User from-the-workspace\n";
    let mut workspace = Workspace::new(&region, |_| config.to_owned()).unwrap();
    let text = output(&mut workspace, "ssh -G i-0decaf00000000001 > \"$OUT\"").await;
    assert!(text.lines().any(|line| line == "user from-the-workspace"), "{text}");
}

#[tokio::test]
async fn a_program_called_by_name_is_ours() {
    let region = Region::start(Options::default()).await.unwrap();
    let workspace = Workspace::new(&region, |_| "Nonsense yes\n".to_owned()).unwrap();
    // Without the workspace's configuration this prints the options for the host and succeeds.
    let status = workspace.run(&["ssh", "-G", "host"].map(OsString::from)).await.unwrap();
    assert_eq!(status.code(), Some(255));
}

#[tokio::test]
async fn the_status_of_the_command_comes_back() {
    let (_region, workspace) = workspace().await;
    let run = async |script: &str| workspace.run(&["sh".into(), "-c".into(), script.into()]).await.unwrap();
    assert_eq!(run("exit 7").await.code(), Some(7));
    assert_eq!(run("kill -KILL $$").await.signal(), Some(9));
    assert!(workspace.run(&["no-such-program-anywhere".into()]).await.is_err());
    assert!(workspace.run(&[]).await.is_err());
}

#[tokio::test]
async fn the_directory_is_private_and_goes_with_its_workspace() {
    let (_region, workspace) = workspace().await;
    let directory = workspace.directory().to_owned();
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    let config = fs::read_to_string(directory.join("ssh_config")).unwrap();
    assert_eq!(config, format!("# {}\n", directory.display()));
    drop(workspace);
    assert!(!directory.exists());
}

#[test]
fn paths_are_quoted_for_the_shell() {
    assert_eq!(quote(Path::new("/tmp/it's $HOME")), r"'/tmp/it'\''s $HOME'");
}
