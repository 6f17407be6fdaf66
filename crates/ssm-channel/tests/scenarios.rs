//! One behaviour a test, on a virtual clock.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use common::{End, Faults, Oversize, Pair, gateway_message, pattern};
use ssm_channel::{Closed, Event, MAX_WINDOW, MessageType, PayloadType, WINDOW};

fn data_numbers(pair: &Pair) -> Vec<i64> {
    let data = pair.client.log.iter().filter(|message| message.header.payload_type == PayloadType::Output);
    data.map(|message| message.header.sequence_number).collect()
}

#[test]
fn lone_newline_arrives_unchanged() {
    let mut pair = Pair::open(Faults::default());
    pair.client.outbox = vec![b"\n".to_vec(), b"\n".to_vec()];
    pair.instance.outbox = vec![b"\n".to_vec()];
    pair.run_until(|pair| pair.instance.received.len() == 2 && pair.client.received.len() == 1);
    assert_eq!(pair.instance.received, b"\n\n");
    assert_eq!(pair.client.received, b"\n");
}

#[test]
fn nothing_is_sent_before_the_handshake_has_settled() {
    let mut pair = Pair::new(Faults::default());
    pair.client.outbox = vec![b"early".to_vec()];
    pair.run_until(|pair| !pair.instance.received.is_empty());
    let numbers: Vec<_> = pair.client.log.iter().map(|message| message.header.payload_type).collect();
    let response = numbers.iter().position(|kind| *kind == PayloadType::HandshakeResponse).unwrap();
    let data = numbers.iter().position(|kind| *kind == PayloadType::Output).unwrap();
    assert!(response < data);
    assert_eq!(pair.instance.received, b"early");
}

#[test]
fn data_sent_during_the_handshake_would_be_lost() {
    // The instance side drops early data like the SSM agent, to detect a client that sends too early.
    let mut pair = Pair::new(Faults::default());
    pair.run_until(|pair| !pair.client.log.is_empty());
    let hasty = ssm_channel::Message {
        header: ssm_channel::Header {
            message_type: MessageType::InputStreamData,
            created_at: 1,
            sequence_number: 0,
            flags: 0,
            id: ssm_channel::MessageId::from_bytes([7; 16]),
            payload_type: PayloadType::Output,
        },
        payload: Bytes::from_static(b"hasty"),
    };
    pair.instance.channel.handle_message(pair.now, hasty.encode()).unwrap();
    assert_eq!(pair.instance.channel.read(), None);
    let acknowledged = pair.instance.channel.poll_transmit(pair.now);
    assert!(acknowledged.is_some(), "it is acknowledged all the same");
}

#[test]
fn data_that_the_instance_cannot_take_yet_is_repeated_until_it_can() {
    let mut pair = Pair::open(Faults { accepts_data: false, ..Faults::default() });
    pair.client.outbox = vec![b"one".to_vec(), b"two".to_vec()];
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.instance.received, b"");
    pair.instance.channel.accept_data();
    pair.run_until(|pair| pair.instance.received.len() == 6);
    assert_eq!(pair.instance.received, b"onetwo");
}

#[test]
fn second_resume_keeps_unacked_data() {
    let mut pair = Pair::open(Faults::default());
    pair.client.outbox = pattern(100_000).chunks(1000).map(<[u8]>::to_vec).collect();
    pair.run_for(Duration::from_millis(1));
    pair.cut(End::Client);
    pair.run_for(Duration::from_millis(21));
    pair.cut(End::Client);
    pair.run_until(|pair| pair.instance.received.len() == 100_000);
    assert_eq!(pair.instance.received, pattern(100_000));
    assert_eq!(pair.client.events.iter().filter(|event| **event == Event::NeedsResume).count(), 2);
}

#[test]
fn after_a_resume_everything_unacknowledged_is_sent_at_once() {
    let mut pair = Pair::open(Faults::default());
    pair.client.outbox = (0..60).map(|_| vec![b'x'; 100]).collect();
    pair.run_for(Duration::from_millis(1));
    pair.cut(End::Client);
    let before = data_numbers(&pair).len();
    pair.run_for(Duration::from_millis(22));
    assert_eq!(data_numbers(&pair).len(), before + 60);
    pair.run_until(|pair| pair.instance.received.len() == 6000);
    assert!(pair.now - pair.start < Duration::from_millis(100), "no 100 ms for each message");
}

#[test]
fn a_burst_lost_on_the_instances_websocket_is_repaired_at_once() {
    // The client's websocket stays open, so the client does not notice the loss.
    let mut pair = Pair::open(Faults { delay: Duration::from_millis(25), ..Faults::default() });
    pair.client.outbox = vec![b"banner".to_vec()];
    pair.run_until(|pair| pair.instance.received.len() == 6 && pair.client.channel.unacknowledged() == 0);
    pair.client.outbox = (0..100).map(|_| vec![b'x'; 100]).collect();
    pair.run_for(Duration::from_millis(1));
    let lost_at = pair.now;
    pair.cut(End::Instance);
    pair.run_until(|pair| pair.instance.received.len() == 6 + 10_000);
    assert!(pair.now - lost_at < Duration::from_millis(500), "{:?}", pair.now - lost_at);
}

#[test]
fn a_burst_is_repaired_at_once_on_a_path_that_became_quicker() {
    // As after a cut under load: every acknowledgement so far had waited in queues.
    let mut pair = Pair::open(Faults { delay: Duration::from_millis(60), ..Faults::default() });
    pair.client.outbox = vec![b"x".to_vec(); 50];
    pair.run_until(|pair| pair.instance.received.len() == 50 && pair.client.channel.unacknowledged() == 0);
    pair.faults.delay = Duration::from_millis(50);
    pair.client.outbox = vec![b"x".to_vec(); 100];
    pair.run_for(Duration::from_millis(1));
    pair.cut(End::Instance);
    let cut_at = pair.now;
    pair.run_until(|pair| pair.instance.received.len() == 150);
    assert!(pair.now - cut_at < Duration::from_secs(1), "{:?}", pair.now - cut_at);
}

#[test]
fn lost_acknowledgements_are_made_up_for_after_a_resume() {
    // The instance repeats nothing: the client sends its old acknowledgements again by itself.
    let mut pair = Pair::open(Faults::default());
    pair.instance.outbox = (0..60).map(|_| vec![b'x'; 100]).collect();
    pair.run_for(Duration::from_millis(6));
    assert_eq!(pair.client.received.len(), 6000);
    pair.cut(End::Client);
    assert!(pair.instance.channel.unacknowledged() > 0);
    pair.run_until(|pair| pair.instance.channel.unacknowledged() == 0);
    assert!(pair.now - pair.start < Duration::from_millis(100));
}

#[test]
fn a_duplicate_is_acknowledged_again_and_delivered_once() {
    let mut pair = Pair::open(Faults { duplicate: 1000, ..Faults::default() });
    pair.instance.outbox = vec![b"once".to_vec()];
    pair.run_until(|pair| pair.client.received.len() == 4);
    pair.run_for(Duration::from_millis(100));
    assert_eq!(pair.client.received, b"once");
    let acknowledgements =
        pair.client.log.iter().filter(|message| message.header.message_type == MessageType::Acknowledge);
    // Request, completion and data, each twice.
    assert_eq!(acknowledgements.count(), 6);
}

#[test]
fn the_window_grows_with_the_path_and_is_bounded() {
    let mut pair = Pair::open(Faults { delay: Duration::from_millis(500), ..Faults::default() });
    pair.client.outbox = vec![b"banner".to_vec(), pattern(40 * WINDOW)];
    pair.run_until(|pair| pair.instance.received.len() == 6 + 40 * WINDOW);
    assert_eq!(pair.instance.received[6..], pattern(40 * WINDOW));
    let peak = pair.client.peak_unacknowledged;
    // A message and a probe may exceed the window.
    assert!((MAX_WINDOW..MAX_WINDOW + 2 * 65_700).contains(&peak), "{peak}");
}

#[test]
fn a_short_path_is_not_filled_beyond_the_first_window() {
    let mut pair = Pair::open(Faults { delay: Duration::from_millis(1), ..Faults::default() });
    pair.client.outbox = vec![b"banner".to_vec(), pattern(20 * WINDOW)];
    pair.run_until(|pair| pair.instance.received.len() == 6 + 20 * WINDOW);
    assert!(pair.client.peak_unacknowledged < 4 * WINDOW, "{}", pair.client.peak_unacknowledged);
}

#[test]
fn acks_flow_while_nobody_reads() {
    let mut pair = Pair::open(Faults::default());
    pair.client.reads = false;
    pair.instance.outbox = (0..4096).map(|_| vec![b'd'; 1024]).collect();
    pair.client.outbox = pattern(2 * WINDOW).chunks(8192).map(<[u8]>::to_vec).collect();
    pair.run_until(|pair| pair.instance.received.len() == 2 * WINDOW);
    assert_eq!(pair.instance.received, pattern(2 * WINDOW));
    pair.client.reads = true;
    pair.run_until(|pair| pair.client.received.len() == 4 << 20);
}

#[test]
fn a_pause_holds_back_new_data_and_loses_none() {
    let mut pair = Pair::open(Faults::default());
    pair.client.channel.handle_message(pair.now, gateway_message("pause_publication", b"")).unwrap();
    assert_eq!(pair.client.channel.send_capacity(), 0);
    pair.client.channel.handle_message(pair.now, gateway_message("start_publication", b"")).unwrap();
    assert!(pair.client.channel.send_capacity() > 0);
}

#[test]
fn a_pause_that_nobody_ends_is_ended() {
    let mut pair = Pair::open(Faults::default());
    pair.client.channel.handle_message(pair.now, gateway_message("pause_publication", b"")).unwrap();
    pair.client.outbox = vec![b"probe".to_vec()];
    pair.run_for(Duration::from_secs(4));
    assert_eq!(pair.instance.received, b"");
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.instance.received, b"probe");
}

#[test]
fn a_download_on_a_long_path_recovers_from_every_cut() {
    // The path holds 8 MiB, so each cut costs thousands of messages, and some of their repeats are overtaken.
    let cuts = [500, 1500, 2500].map(|at| (Duration::from_millis(at), End::Client)).to_vec();
    let delay = Duration::from_millis(50);
    let mut pair =
        Pair::open(Faults { delay, reorder: 20, cuts, announce_pauses: true, ..Faults::default() });
    pair.instance.outbox = vec![pattern(64 << 20)];
    pair.run_until(|pair| pair.client.received.len() == 64 << 20);
    assert!(pair.client.received == pattern(64 << 20));
    let took = pair.now - pair.start;
    assert!(took < Duration::from_secs(6), "{took:?}");
}

fn old_agent(away: Duration) -> Pair {
    let mut pair = Pair::open(Faults { agent_version: "3.1.1188.0", away, ..Faults::default() });
    pair.client.outbox = vec![b"a".to_vec()];
    pair.run_until(|pair| pair.client.channel.unacknowledged() == 0 && !pair.instance.received.is_empty());
    pair
}

#[test]
fn old_agents_that_forget_an_acknowledgement_do_not_stall_the_sender() {
    // Agents before 3.2.1041 drop duplicates silently. The client's own window must still drain.
    let mut pair = old_agent(Duration::ZERO);
    pair.faults.lose_acknowledgement = 1000;
    pair.client.outbox = vec![b"b".to_vec(), b"c".to_vec()];
    pair.run_until(|pair| pair.instance.received == b"abc");
    pair.run_for(Duration::from_millis(50));
    pair.faults.lose_acknowledgement = 0;
    let began = pair.now;
    pair.run_until(|pair| pair.client.channel.unacknowledged() == 0);
    assert!(pair.now - began < Duration::from_secs(1), "{:?}", pair.now - began);
    assert_eq!(pair.instance.received, b"abc");
}

#[test]
fn old_agents_that_were_away_get_everything() {
    // An acknowledgement after the reconnect proves nothing about repeats before it.
    let mut pair = old_agent(Duration::from_secs(5));
    pair.cut(End::Instance);
    pair.client.outbox = vec![b"b".to_vec()];
    pair.run_for(Duration::from_millis(4_900));
    assert!(data_numbers(&pair).iter().filter(|number| **number == 2).count() > 3, "repeated while away");
    pair.run_until(|pair| pair.now - pair.start > Duration::from_secs(6));
    pair.client.outbox = vec![b"c".to_vec()];
    pair.run_until(|pair| pair.instance.received == b"abc");
}

#[test]
fn a_path_slower_than_the_first_guess_is_measured_and_then_left_in_peace() {
    let mut pair = Pair::open(Faults { delay: Duration::from_millis(150), ..Faults::default() });
    for _ in 0..10 {
        pair.client.outbox = vec![b"x".to_vec()];
        pair.run_until(|pair| pair.client.channel.unacknowledged() > 0);
        pair.run_until(|pair| pair.client.channel.unacknowledged() == 0);
    }
    let sent = data_numbers(&pair).len();
    assert!(sent <= 12, "{sent} messages for ten keystrokes");
}

/// How often a message was sent on average, with one every 20 ms and a path that becomes slower meanwhile.
fn transmissions_on_a_path_that_slows(before: u64, after: u64) -> f64 {
    let delay = |round_trip| Duration::from_millis(round_trip / 2);
    let mut pair = Pair::open(Faults { delay: delay(before), ..Faults::default() });
    for number in 0..1500 {
        if number == 150 {
            pair.faults.delay = delay(after);
        }
        pair.client.outbox = vec![vec![b'x'; 100]];
        pair.run_for(Duration::from_millis(20));
    }
    pair.run_until(|pair| pair.client.channel.unacknowledged() == 0);
    let numbers = data_numbers(&pair);
    numbers.len() as f64 / numbers.iter().collect::<BTreeSet<_>>().len() as f64
}

#[test]
fn a_path_that_becomes_slower_is_not_taken_for_a_lossy_one() {
    for (before, after) in [(150, 230), (250, 260), (50, 600), (50, 2000), (10, 100), (300, 300)] {
        let times = transmissions_on_a_path_that_slows(before, after);
        assert!(times < 1.2, "{before} to {after} ms: each message {times} times");
    }
}

#[test]
fn terminate_is_heard_by_the_instance_after_all_data() {
    let mut pair = Pair::open(Faults::default());
    pair.client.outbox = vec![pattern(5000)];
    pair.run_for(Duration::from_millis(1));
    pair.client.channel.terminate(pair.now);
    pair.run_until(|pair| pair.client.closed().is_some());
    assert_eq!(pair.client.closed(), Some(&Closed::Terminated { acknowledged: true }));
    assert_eq!(pair.instance.received, pattern(5000));
    assert!(pair.instance.events.contains(&Event::Flag(ssm_channel::Flag::TerminateSession)));
}

#[test]
fn terminate_ends_within_a_second_when_nobody_answers() {
    let mut pair = Pair::open(Faults::default());
    pair.faults.delay = Duration::from_secs(30);
    let before = pair.now;
    pair.client.channel.terminate(before);
    pair.run_until(|pair| pair.client.closed().is_some());
    assert_eq!(pair.client.closed(), Some(&Closed::Terminated { acknowledged: false }));
    assert!(pair.now - before <= Duration::from_secs(1));
}

#[test]
fn agents_too_old_for_the_flag_are_left_to_the_api() {
    let mut pair = Pair::open(Faults { agent_version: "2.3.722.0", ..Faults::default() });
    pair.client.channel.terminate(pair.now);
    pair.run_until(|pair| pair.client.closed().is_some());
    assert_eq!(pair.client.closed(), Some(&Closed::Terminated { acknowledged: false }));
    assert!(pair.instance.events.iter().all(|event| !matches!(event, Event::Flag(_))));
}

#[test]
fn sessions_that_ignore_the_flag_are_left_to_the_api() {
    for session_type in ["NonInteractiveCommands", "InteractiveCommands", "Standard_Stream"] {
        let mut pair = Pair::open(Faults { session_type, ..Faults::default() });
        let before = pair.client.log.len();
        pair.client.channel.terminate(pair.now);
        let closed = Event::Closed(Closed::Terminated { acknowledged: false });
        assert_eq!(pair.client.channel.poll_event(), Some(closed), "{session_type}");
        pair.run_for(Duration::from_secs(2));
        assert_eq!(pair.client.log.len(), before, "{session_type}: no flag was sent");
    }
}

/// A message of the instance with this payload.
fn output(number: i64, payload_type: u32, payload: &'static [u8]) -> Bytes {
    let header = ssm_channel::Header {
        message_type: MessageType::OutputStreamData,
        created_at: 1,
        sequence_number: number,
        flags: 0,
        id: ssm_channel::MessageId::from_bytes([7; 16]),
        payload_type: payload_type.into(),
    };
    ssm_channel::Message { header, payload: Bytes::from_static(payload) }.encode()
}

#[test]
fn a_command_that_cannot_be_started_says_why() {
    let words = b"exec: \"x\": executable file not found in $PATH";
    let mut pair = Pair::open(Faults { session_type: "NonInteractiveCommands", ..Faults::default() });
    pair.client.channel.handle_message(pair.now, output(2, 11, words)).unwrap();
    assert_eq!(pair.client.channel.backlog(), words.len() + 120);
    assert_eq!(pair.client.channel.read(), None, "it is not output");
    assert_eq!(pair.client.channel.read_error().as_deref(), Some(&words[..]));
    assert_eq!((pair.client.channel.read_error(), pair.client.channel.backlog()), (None, 0));
}

#[test]
fn separate_outputs_and_the_exit_status_are_told_apart() {
    let mut pair = Pair::open(Faults { session_type: "NonInteractiveCommands", ..Faults::default() });
    let messages: [(u32, &[u8]); 5] = [
        (11, b"err"),
        (1, b"out"),
        (12, b"EXIT_CODE: nonsense"),
        (12, b"EXIT_CODE: -1"),
        (12, b"EXIT_CODE: 3"),
    ];
    for (number, (payload_type, payload)) in (2..).zip(messages) {
        pair.client.channel.handle_message(pair.now, output(number, payload_type, payload)).unwrap();
    }
    assert_eq!(pair.client.channel.read().as_deref(), Some(&b"out"[..]));
    assert_eq!(pair.client.channel.read_error().as_deref(), Some(&b"err"[..]));
    assert_eq!(pair.client.channel.poll_event(), Some(Event::ExitStatus(-1)));
    assert_eq!(pair.client.channel.poll_event(), Some(Event::ExitStatus(3)));
    assert_eq!(pair.client.channel.poll_event(), None);
}

#[test]
fn the_gateways_reason_is_kept_and_what_came_before_can_be_read() {
    let mut pair = Pair::open(Faults::default());
    pair.client.reads = false;
    pair.instance.outbox = vec![b"last words".to_vec()];
    pair.run_for(Duration::from_millis(6));
    let close = gateway_message("channel_closed", br#"{"Output":"the port refused"}"#);
    pair.client.channel.handle_message(pair.now, close).unwrap();
    pair.client.reads = true;
    pair.run_for(Duration::from_millis(1));
    assert_eq!(pair.client.closed(), Some(&Closed::ByGateway { output: "the port refused".into() }));
    assert_eq!(pair.client.received, b"last words");
}

#[test]
fn a_silent_instance_is_given_up_after_a_minute() {
    let mut pair = Pair::new(Faults { delay: Duration::from_secs(100), ..Faults::default() });
    pair.run_for(Duration::from_millis(59_999));
    assert_eq!(pair.client.closed(), None);
    pair.run_for(Duration::from_millis(1));
    assert_eq!(pair.client.closed(), Some(&Closed::HandshakeTimeout));
}

#[test]
fn nobody_behind_the_gateway_is_given_up_after_five_minutes() {
    let mut pair = Pair::open(Faults::default());
    pair.faults.lose_acknowledgement = 1000;
    pair.client.outbox = vec![b"anyone?".to_vec()];
    pair.run_for(Duration::from_millis(299_999));
    assert_eq!(pair.client.closed(), None);
    pair.run_for(Duration::from_millis(1));
    assert_eq!(pair.client.closed(), Some(&Closed::NoProgress));
}

#[test]
fn a_session_without_handshake_begins_with_data() {
    let mut pair = Pair::new(Faults::default());
    let hello = ssm_channel::Message {
        header: ssm_channel::Header {
            message_type: MessageType::OutputStreamData,
            created_at: 1,
            sequence_number: 0,
            flags: 1,
            id: ssm_channel::MessageId::from_bytes([7; 16]),
            payload_type: PayloadType::Output,
        },
        payload: Bytes::from_static(b"$ "),
    };
    pair.client.channel.handle_message(pair.now, hello.encode()).unwrap();
    assert_eq!(pair.client.channel.read().as_deref(), Some(&b"$ "[..]));
    assert!(pair.client.channel.send_capacity() > 0);
}

#[test]
fn a_malformed_message_is_reported_and_survived() {
    let mut pair = Pair::open(Faults::default());
    for record in
        [Bytes::new(), Bytes::from(vec![0; 119]), Bytes::from(vec![0xff; 500]), Bytes::from(vec![0; 120])]
    {
        assert!(pair.client.channel.handle_message(pair.now, record).is_err());
    }
    pair.instance.outbox = vec![b"still here".to_vec()];
    pair.run_until(|pair| pair.client.received == b"still here");
}

fn largest_data(pair: &Pair) -> usize {
    let data = pair.client.log.iter().filter(|message| message.header.payload_type == PayloadType::Output);
    data.map(|message| message.payload.len()).max().unwrap_or_default()
}

#[test]
fn bulk_data_grows_to_large_messages() {
    let mut pair = Pair::open(Faults::default());
    // Probes are sent only after the SSM agent has accepted data.
    pair.client.outbox = vec![b"banner".to_vec(), pattern(5 * WINDOW)];
    pair.run_until(|pair| pair.instance.received.len() == 6 + 5 * WINDOW);
    assert_eq!(pair.instance.received[6..], pattern(5 * WINDOW));
    assert!(largest_data(&pair) > 64_000, "{}", largest_data(&pair));
}

#[test]
fn a_gateway_that_closes_on_large_messages_costs_no_byte() {
    for (limit, largest) in [(1200, 1024), (10_000, 8192)] {
        let mut pair =
            Pair::open(Faults { size_limit: Some((limit, Oversize::Closes)), ..Faults::default() });
        pair.client.outbox = vec![b"banner".to_vec(), pattern(3 * WINDOW)];
        pair.run_until(|pair| pair.instance.received.len() == 6 + 3 * WINDOW);
        assert_eq!(pair.instance.received[6..], pattern(3 * WINDOW));
        assert_eq!(largest_data(&pair), largest);
        let lost = pair.client.events.iter().filter(|event| **event == Event::NeedsResume).count();
        assert_eq!(lost, 2, "tried twice, then never again");
    }
}

#[test]
fn a_gateway_that_drops_large_messages_costs_no_byte_and_one_short_wait() {
    for (limit, largest) in [(1200, 1024), (10_000, 8192)] {
        let mut pair =
            Pair::open(Faults { size_limit: Some((limit, Oversize::Vanishes)), ..Faults::default() });
        pair.client.outbox = vec![b"banner".to_vec(), pattern(3 * WINDOW)];
        pair.run_until(|pair| pair.instance.received.len() == 6 + 3 * WINDOW);
        assert_eq!(pair.instance.received[6..], pattern(3 * WINDOW));
        assert_eq!(largest_data(&pair), largest);
        assert!(pair.now - pair.start < Duration::from_secs(6));
    }
}
