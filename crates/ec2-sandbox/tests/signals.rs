//! Signals to the process while a command runs. This test has its own binary, since signals concern the whole
//! process.

use ec2_sandbox::{Options, Region, Workspace};

#[tokio::test]
async fn interrupts_are_outlived_and_termination_is_passed_on() {
    let region = Region::start(Options::default()).await.unwrap();
    let workspace = Workspace::new(&region, |_| String::new()).unwrap();
    let run = async |script: &str| workspace.run(&["sh".into(), "-c".into(), script.into()]).await.unwrap();

    assert_eq!(run("kill -INT $PPID; kill -QUIT $PPID; exit 3").await.code(), Some(3));
    for signal in ["TERM", "HUP"] {
        let script = format!("trap 'kill $!; exit 9' {signal}; sleep 60 & kill -{signal} $PPID; wait");
        assert_eq!(run(&script).await.code(), Some(9), "{signal}");
    }
}
