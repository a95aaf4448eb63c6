//! Tests without an interface: when a queue is tried again, and where a program is of no use.

use super::*;
use crate::os::xsk::BindMode;

#[test]
fn no_program_is_attached_where_it_has_nothing_to_redirect_unless_the_config_insists() {
    let with = |mac| Device {
        mac,
        ..Device::default()
    };
    let (card, loopback, tunnel) = (
        with(Some([2, 0, 0, 0, 0, 1])),
        with(Some([0; 6])),
        with(None),
    );
    assert!(gains_by_xdp(&card, XdpMode::Auto));
    for device in [&loopback, &tunnel] {
        assert!(!gains_by_xdp(device, XdpMode::Auto), "{device:?}");
        assert!(gains_by_xdp(device, XdpMode::Generic), "{device:?}");
    }
}

/// A queue whose socket fails is tried again, with growing pauses, as long as its interface exists.
#[test]
fn a_queue_that_could_not_have_a_socket_is_tried_again_after_a_pause() {
    let text = "[[interface]]\nname = \"lan0\"\n[[upstream]]\nservers = [\"192.0.2.1\"]\n";
    let config = Config::parse("f", text).expect("valid");
    let inboxes = [Inbox::new().expect("eventfd")];
    let mut seats = Seats::new(1, 1);
    let mut attachment = Attachment::new(&config.interfaces[0]);
    attachment.ifindex = Some(1);
    attachment.queues.push(Queue {
        number: 0,
        seat: Seated {
            worker: 0,
            is_alone: false,
        },
        place: None,
        mode: None,
        retry: Retry::default(),
        trouble: String::new(),
    });
    let mut now = Instant::from_millis(5);
    for pause in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
        attachment.open_queues(&mut seats, &inboxes, now);
        let tried = attachment.queues[0].retry;
        attachment.open_queues(&mut seats, &inboxes, now + (pause - 1));
        assert_eq!(attachment.queues[0].retry, tried, "{pause}");
        assert!(!attachment.is_due(now + (pause - 1)), "{pause}");
        now = now + pause;
        assert!(attachment.is_due(now), "{pause}");
    }
}

/// As the kernel answered the first bind: with a copy, or with zero copy.
#[test]
fn the_first_bind_decides_whether_queues_have_workers_for_themselves() {
    let of = |zero_copy: &str, is_native: bool| {
        let text = format!(
            "[[interface]]\nname = \"lan0\"\nzero_copy = {zero_copy}\n[[upstream]]\nservers = [\"192.0.2.1\"]\n"
        );
        let config = Config::parse("f", &text).expect("valid");
        let mut attachment = Attachment::new(&config.interfaces[0]);
        attachment.is_native = is_native;
        attachment
    };
    for (zero_copy, is_native, first, expected) in [
        ("false", true, CopyMode::Copy, [false, false, false]),
        ("true", true, CopyMode::Copy, [false, true, true]),
        ("\"auto\"", true, CopyMode::Copy, [true, true, false]),
        ("\"auto\"", true, CopyMode::ZeroCopy, [true, true, true]),
        // A program in generic mode gets nothing from such a queue.
        ("true", false, CopyMode::Copy, [false, false, false]),
        ("\"auto\"", false, CopyMode::Copy, [false, false, false]),
    ] {
        let mut seats = Seats::new(1, 4);
        let mut attachment = of(zero_copy, is_native);
        let [tries_first, is_alone] = [attachment.tries_first(), attachment.wants_alone()];
        let seat = seats.take(is_alone).expect("a worker is free");
        let wanted = match is_alone {
            true => BindMode::Auto,
            false => BindMode::Copy,
        };
        assert_eq!(attachment.bind_mode(seat), wanted, "{zero_copy}");
        attachment.queues.push(Queue {
            number: 0,
            seat,
            place: Some(0),
            mode: Some(first),
            retry: Retry::default(),
            trouble: String::new(),
        });
        attachment.share_copied(&mut seats);
        let found = [tries_first, is_alone, attachment.wants_alone()];
        assert_eq!(found, expected, "{zero_copy} {is_native} {first}");
        assert!(!attachment.tries_first(), "once");
        if zero_copy == "\"auto\"" {
            let is_alone = attachment.queues[0].seat.is_alone;
            assert_eq!(
                is_alone,
                first == CopyMode::ZeroCopy && is_native,
                "{first}"
            );
        }
    }
}
