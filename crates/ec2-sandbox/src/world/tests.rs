//! Sessions, keys, credentials and limits of the world, and how long each lasts.

use super::*;

fn world() -> World {
    World::new(SocketAddr::from(([127, 0, 0, 1], 4321)), Settings::default(), start()).unwrap()
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn opening() -> Opening {
    Opening {
        target: "i-0decaf00000000001".to_owned(),
        region: AwsRegion::HOME,
        document: "AWS-StartSSHSession".to_owned(),
        purpose: Purpose::Port(22),
        reason: None,
    }
}

#[test]
fn a_pushed_key_is_accepted_for_sixty_seconds() {
    let world = world();
    world.push_key("i-0decaf00000000001", "ec2-user", "ssh-ed25519 AAAA one\n", start());
    let accepted =
        |after| world.accepted_keys("i-0decaf00000000001", "ec2-user", start() + Duration::from_secs(after));
    assert_eq!(accepted(59), ["ssh-ed25519 AAAA one"]);
    assert_eq!(accepted(60), Vec::<String>::new());
}

#[test]
fn keys_pushed_within_a_minute_are_accepted_together_and_only_for_their_user() {
    let world = world();
    for key in ["one", "two"] {
        world.push_key("i-0decaf00000000001", "ec2-user", key, start());
    }
    assert_eq!(world.accepted_keys("i-0decaf00000000001", "ec2-user", start()), ["one", "two"]);
    assert!(world.accepted_keys("i-0decaf00000000001", "root", start()).is_empty());
    assert!(world.accepted_keys("i-0decaf00000000002", "ec2-user", start()).is_empty());
}

#[test]
fn keys_are_accepted_where_sshd_reads_them_for_a_user_that_exists() {
    let world = world();
    for (id, user, count) in [
        ("i-0decaf00000000001", "ec2-user", 1),
        ("i-0decaf00000000001", "ghost", 0),
        ("i-0dead000000000003", "ec2-user", 0),
        ("i-0dead000000000018", "ec2-user", 0),
        ("i-0dead000000000019", "ec2-user", 0),
        ("i-0dead00000000001a", "ec2-user", 0),
    ] {
        world.push_key(id, user, "one", start());
        assert_eq!(world.accepted_keys(id, user, start()).len(), count, "{id} {user}");
    }
}

#[test]
fn a_token_serves_one_connection() {
    let world = world();
    let ticket = world.start_session(opening(), &Caller::you(), start()).unwrap();
    let info = world.take_token(&ticket.session_id, &ticket.token, start()).unwrap();
    assert_eq!((info.target.as_str(), info.purpose), ("i-0decaf00000000001", Purpose::Port(22)));
    let again = world.take_token(&ticket.session_id, &ticket.token, start());
    assert_eq!(again.unwrap_err(), TokenError::WrongToken);
}

#[test]
fn a_token_is_good_for_a_minute() {
    let world = world();
    let ticket = world.start_session(opening(), &Caller::you(), start()).unwrap();
    let late = world.take_token(&ticket.session_id, &ticket.token, start() + TOKEN_LIFE);
    assert_eq!(late.unwrap_err(), TokenError::ExpiredToken);
    let later = start() + TOKEN_LIFE;
    let fresh = world.resume_session(&ticket.session_id, later).unwrap().unwrap();
    let in_time = later + TOKEN_LIFE - Duration::from_nanos(1);
    assert!(world.take_token(&ticket.session_id, &fresh.token, in_time).is_ok());
}

#[test]
fn resuming_replaces_the_token() {
    let world = world();
    let first = world.start_session(opening(), &Caller::you(), start()).unwrap();
    let second = world.resume_session(&first.session_id, start()).unwrap().unwrap();
    assert_eq!(second.stream_url, first.stream_url);
    let refused = world.take_token(&first.session_id, &first.token, start());
    assert_eq!(refused.unwrap_err(), TokenError::WrongToken);
    assert!(world.take_token(&first.session_id, &second.token, start()).is_ok());
}

#[test]
fn a_terminated_session_gives_out_an_empty_token_and_takes_none() {
    let world = world();
    let ticket = world.start_session(opening(), &Caller::you(), start()).unwrap();
    assert!(world.terminate(&ticket.session_id, start()));
    assert!(!world.terminate(&ticket.session_id, start()));
    assert_eq!(world.resume_session(&ticket.session_id, start()).unwrap().unwrap().token, "");
    for token in ["", &ticket.token] {
        let refused = world.take_token(&ticket.session_id, token, start());
        assert_eq!(refused.unwrap_err(), TokenError::Terminated);
    }
}

#[test]
fn whoever_holds_the_channel_learns_of_its_termination() {
    let world = world();
    let ticket = world.start_session(opening(), &Caller::you(), start()).unwrap();
    let info = world.take_token(&ticket.session_id, &ticket.token, start()).unwrap();
    assert_eq!(*info.state.borrow(), SessionState::Connected);
    world.terminate(&ticket.session_id, start());
    assert_eq!(*info.state.borrow(), SessionState::Terminated);
}

#[test]
fn an_unknown_session_is_neither_resumed_nor_opened() {
    let world = world();
    assert!(world.resume_session("you-0", start()).unwrap().is_none());
    assert_eq!(world.take_token("you-0", "", start()).unwrap_err(), TokenError::UnknownSession);
}

#[test]
fn host_keys_last_until_they_are_replaced() {
    let world = world();
    let presented = |id| {
        let keys = world.host_keys(world.instance(id).unwrap()).unwrap();
        let presented = keys.presented.public_key().key_data().clone();
        (presented == *keys.ed25519.key_data(), presented, keys.lines())
    };
    let (is_true, first, lines) = presented("i-0decaf00000000001");
    assert!(is_true);
    assert_eq!(presented("i-0decaf00000000001"), (true, first.clone(), lines.clone()));
    assert_ne!(presented("i-0decaf00000000002").1, first);
    assert!(!presented("i-0dead00000000001d").0);
    world.replace_host_key(world.instance("i-0decaf00000000001").unwrap()).unwrap();
    let (is_true, second, same_lines) = presented("i-0decaf00000000001");
    assert!(!is_true);
    assert_ne!(second, first);
    assert_eq!(same_lines, lines);
}

#[test]
fn credentials_of_a_role_expire_and_the_first_ones_do_not() {
    let world = world();
    let expires = start() + Duration::from_secs(900);
    let given = world.give_credentials(Role::Admin.session("me"), expires).unwrap();
    let grant = world.grant(&given.access_key_id).unwrap();
    let first = world.grant(&world.credentials().access_key_id).unwrap();
    let just_before = expires - Duration::from_nanos(1);
    assert_eq!([just_before, expires].map(|at| grant.has_expired(at)), [false, true]);
    assert!(!first.has_expired(expires + Duration::from_secs(1_000_000)));
    assert_eq!(first.caller, Caller::you());
}

#[test]
fn throttling_stops_after_two_calls_or_never() {
    let world = world();
    let calls = |id| {
        let instance = world.instance(id).unwrap();
        (0..4).map(|_| world.throttles(instance)).collect::<Vec<_>>()
    };
    assert_eq!(calls("i-0decaf00000000001"), [false; 4]);
    assert_eq!(calls("i-0dead000000000008"), [true, true, false, false]);
    assert_eq!(calls("i-0dead000000000009"), [true; 4]);
}
