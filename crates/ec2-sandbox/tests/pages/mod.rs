//! Pages and reservations of the lists, and the rate limit of StartSession.

use std::collections::BTreeMap;

use ec2_sandbox::{Options, Region};
use serde_json::{Value, json};

use crate::client::Client;

const HEALTHY: &str = "i-0decaf00000000001";

async fn region(options: Options) -> (Region, Client) {
    let region = Region::start(options).await.unwrap();
    let client = Client::new(&region);
    (region, client)
}

#[tokio::test]
async fn a_page_that_is_short_or_empty_need_not_be_the_last() {
    let (_region, client) = region(Options::default()).await;
    let all = client.instance_pages(&[("MaxResults", "1000")]).await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert!((1..5).contains(&all[0].len()) && all[1].len() > 5, "{all:?}");
    let filter = [("Filter.1.Name", "tag:Name"), ("Filter.1.Value.1", "web-1")];
    assert_eq!(client.instance_pages(&filter).await, [vec![], vec![HEALTHY.to_owned()]]);
    let nobody = [("Filter.1.Name", "tag:Name"), ("Filter.1.Value.1", "nobody")];
    assert_eq!(client.instance_pages(&nobody).await, [vec![""; 0], vec![]]);
    // A call with ids has one page.
    let ids = [("InstanceId.1", HEALTHY), ("Filter.1.Name", "tag:Name"), ("Filter.1.Value.1", "web-1")];
    assert_eq!(client.instance_pages(&ids).await, [[HEALTHY]]);
}

#[tokio::test]
async fn the_lists_of_systems_manager_have_such_pages_too() {
    let (_region, client) = region(Options::default()).await;
    let filter = json!([{"Key": "InstanceIds", "Values": [HEALTHY]}]);
    let list = async |token: &Value| {
        let input = json!({"Filters": filter, "NextToken": token});
        client.ssm("DescribeInstanceInformation", &input).await.json()
    };
    let first = list(&Value::Null).await;
    assert_eq!(first["InstanceInformationList"], json!([]));
    let second = list(&first["NextToken"]).await;
    assert_eq!(second["InstanceInformationList"][0]["InstanceId"], HEALTHY);
    assert!(second["NextToken"].is_null());
    let all = client.ssm("DescribeInstanceInformation", &json!({"MaxResults": 50})).await.json();
    assert!((1..5).contains(&all["InstanceInformationList"].as_array().unwrap().len()));
    assert!(all["NextToken"].is_string());
}

#[tokio::test]
async fn what_was_launched_together_is_one_reservation() {
    let (_region, client) = region(Options { fleet: 24, ..Options::default() }).await;
    let mut reservations = BTreeMap::<String, Vec<String>>::new();
    let mut token = None::<String>;
    loop {
        let mut input = vec![("Action", "DescribeInstances")];
        input.extend(token.as_deref().map(|token| ("NextToken", token)));
        let reply = client.ec2(&input).await;
        let mut on_page = Vec::new();
        for part in reply.body.split("<reservationId>").skip(1) {
            let (id, rest) = part.split_once("</reservationId>").unwrap();
            let instances = rest.split("<instanceId>").skip(1);
            let instances = instances.map(|rest| rest.split_once('<').unwrap().0.to_owned());
            reservations.entry(id.to_owned()).or_default().extend(instances);
            on_page.push(id.to_owned());
        }
        let count = on_page.len();
        on_page.sort();
        on_page.dedup();
        assert_eq!(on_page.len(), count, "once a page");
        token = reply.elements("nextToken").pop();
        if token.is_none() {
            break;
        }
    }
    let together = |ids: &[&str]| reservations.values().any(|found| found == ids);
    assert!(together(&["i-0decaf00000000001", "i-0decaf00000000002"]), "{reservations:?}");
    assert!(together(&["i-0decaf00000000006", "i-0decaf00000000007"]));
    assert!(together(&["i-0decaf00000000003"]));
    assert!(together(&["i-0f1ee700000000001", "i-0f1ee700000000005", "i-0f1ee700000000009"]));
    // Only matching instances are listed.
    let filter = [("Filter.1.Name", "tag:Name"), ("Filter.1.Value.1", "web-2")];
    assert_eq!(client.instance_pages(&filter).await.concat(), ["i-0decaf00000000002"]);
    let whole = [("Filter.1.Name", "reservation-id"), ("Filter.1.Value.1", "r-0decaf00000000006")];
    assert_eq!(client.instance_pages(&whole).await.concat(), ["i-0decaf00000000006", "i-0decaf00000000007"]);
}

#[tokio::test]
async fn three_sessions_a_second_may_be_started_in_a_region() {
    let (_region, client) = region(Options::default()).await;
    let start = async |client: &Client, target: &str| {
        let input = json!({"Target": target, "DocumentName": "AWS-StartSSHSession"});
        let reply = client.ssm("StartSession", &input).await;
        if reply.status == 200 { "started".to_owned() } else { reply.code() }
    };
    let (mut started, mut outcome) = (0, "started".to_owned());
    // Without pauses: each third of a second admits one more.
    while outcome == "started" && started < 1000 {
        outcome = start(&client, HEALTHY).await;
        started += usize::from(outcome == "started");
    }
    assert_eq!(outcome, "ThrottlingException", "after {started}");
    assert!(started >= 3, "{started}");
    assert_eq!(start(&client.in_region("eu-west-1"), "i-0decaf0000000000a").await, "started");
}
