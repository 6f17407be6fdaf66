//! For any bytes, any pieces and any faults: the bytes out are the bytes in, and memory stays under its
//! bound.

mod common;

use std::time::Duration;

use common::{End, Faults, Oversize, Pair, pattern};
use proptest::prelude::*;
use ssm_channel::{MAX_WINDOW, Message};

prop_compose! {
    fn faults()(
        delay in 0_u64..200,
        duplicate in 0_u64..300,
        reorder in 0_u64..300,
        lose_acknowledgement in 0_u64..100,
        cuts in prop::collection::vec((0_u64..5_000, prop::bool::ANY), 0..12),
        away in 0_u64..3_000,
        announce_pauses in prop::bool::ANY,
        agent_version in prop::sample::select(vec!["3.3.1142.0", "3.2.1041.0", "2.3.733.0"]),
        size_limit in prop::option::of((1200_usize..70_000, prop::bool::ANY)),
        seed in any::<u64>(),
    ) -> Faults {
        let cuts = cuts.into_iter();
        let size_limit = size_limit.map(|(limit, closes)| {
            (limit, if closes { Oversize::Closes } else { Oversize::Vanishes })
        });
        Faults {
            delay: Duration::from_millis(delay),
            duplicate,
            reorder,
            lose_acknowledgement,
            cuts: cuts
                .map(|(time, client)| {
                    (Duration::from_millis(time), if client { End::Client } else { End::Instance })
                })
                .collect(),
            away: Duration::from_millis(away),
            announce_pauses,
            agent_version,
            session_type: "Port",
            accepts_data: true,
            size_limit,
            seed,
        }
    }
}

/// `length` bytes in pieces of the given sizes, over and over.
fn pieces(length: usize, sizes: &[usize]) -> Vec<Vec<u8>> {
    let bytes = pattern(length);
    let mut rest = &bytes[..];
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, tail) = rest.split_at((*size).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = tail;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_out_equal_bytes_in(
        faults in faults(),
        up in 0_usize..300_000,
        down in 0_usize..300_000,
        sizes in prop::collection::vec(1_usize..20_000, 1..8),
    ) {
        let mut pair = Pair::new(faults);
        pair.client.outbox = pieces(up, &sizes);
        pair.instance.outbox = pieces(down, &sizes);
        pair.run_until(|pair| pair.instance.received.len() >= up && pair.client.received.len() >= down);
        // Messages still under way must not add bytes.
        pair.run_for(Duration::from_secs(5));
        prop_assert_eq!(&pair.instance.received, &pattern(up));
        prop_assert_eq!(&pair.client.received, &pattern(down));
        prop_assert!(pair.client.closed().is_none() && pair.instance.closed().is_none());
        for peer in [&pair.client, &pair.instance] {
            prop_assert!(peer.peak_unacknowledged <= MAX_WINDOW + 2 * 65_700);
            prop_assert!(peer.peak_backlog <= 20 << 20);
        }
    }

    #[test]
    fn what_is_parsed_encodes_to_the_same_bytes(record in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(message) = Message::parse(record.into()) {
            let encoded = message.encode();
            prop_assert_eq!(Message::parse(encoded).unwrap(), message);
        }
    }
}
