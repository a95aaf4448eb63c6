use super::*;

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    let parse = |text: &&str| text.parse().expect("an address");
    texts.iter().map(parse).collect()
}

fn listening(places: &[&str], places_max: usize) -> Listening {
    Listening {
        places: addresses(places)
            .into_iter()
            .map(ListenAddress::new)
            .collect(),
        places_max,
        left_out: Vec::new(),
    }
}

/// Opens and closes all sockets. Returns the new ones with their places.
fn taken(listening: &mut Listening, wanted: &[&str]) -> Vec<String> {
    for place in &mut listening.places {
        place.open = [place.is_wanted; ENGINES];
        place.left = [false; ENGINES];
    }
    listening.take_places(&addresses(wanted));
    let places = listening.places.iter().enumerate();
    let new = places.filter(|(_, place)| place.is_wanted && !place.open[0]);
    new.map(|(number, place)| format!("{number} {}", place.address))
        .collect()
}

#[test]
fn a_place_is_kept_for_an_address_that_may_come_back() {
    let (a, b, c) = ("192.0.2.1:53", "[2001:db8:1::1]:53", "[2001:db8:2::1]:53");
    let mut listening = listening(&[a, b], 3);
    assert!(taken(&mut listening, &[a, b]).is_empty());
    assert!(taken(&mut listening, &[a]).is_empty());
    assert_eq!(taken(&mut listening, &[a, b]), [format!("1 {b}")]);
    assert_eq!(taken(&mut listening, &[a, b, c]), [format!("2 {c}")]);
}

/// Contents of a command to a worker: the number of sockets that it gets, and the places of those that it closes.
fn told(inbox: &Inbox) -> Option<(usize, Vec<u16>)> {
    let command = inbox.take()?;
    let WorkerCommand::Listen(listeners) = command else {
        panic!("another command")
    };
    let opened = listeners.udp.len() + listeners.tcp.len();
    Some((opened, listeners.left))
}

#[test]
fn sockets_of_an_address_that_is_gone_are_closed_and_opened_anew_when_it_is_back() {
    let (a, b) = ("127.0.0.1:0", "[::1]:0");
    let mut listening = listening(&[a, b], 2);
    let inboxes: Vec<Inbox> = (0..ENGINES)
        .map(|_| Inbox::new().expect("eventfd"))
        .collect();
    let now = Instant::from_millis(1);
    let engines = [0, TCP];
    let cases = [
        (vec![a, b], Some((2, vec![]))),
        (vec![b], Some((0, vec![0]))),
        (vec![b], None),
        (vec![a, b], Some((1, vec![]))),
        // Another address gets the place.
        (vec!["127.0.0.2:0", b], Some((1, vec![0]))),
    ];
    for (wanted, expected) in cases {
        listening.take_places(&addresses(&wanted));
        assert_eq!(listening.is_due(now), expected.is_some(), "{wanted:?}");
        listening.poll(&engines, now, &inboxes, true);
        for engine in engines {
            assert_eq!(told(&inboxes[engine]), expected, "{engine} {wanted:?}");
        }
        assert!(!listening.is_due(now));
    }
}

#[test]
fn who_is_not_ready_says_whether_an_address_is_missing_or_cannot_be_had() {
    let missing = listening(&[], 1).why_silent();
    assert!(
        missing.ends_with("are missing; waiting for them"),
        "{missing}"
    );
    // Another program has the address.
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let held = holder.local_addr().expect("it is bound").to_string();
    let mut listening = listening(&[&held], 1);
    let opened = listening.open(TCP, Instant::from_millis(1));
    assert!(opened.is_empty());
    let why = listening.why_silent();
    assert!(
        why.starts_with("no address of the config can be listened on"),
        "{why}"
    );
}

#[test]
fn a_worker_whose_inbox_is_full_closes_its_sockets_later() {
    let mut listening = listening(&["127.0.0.1:0"], 1);
    let inboxes: Vec<Inbox> = (0..ENGINES)
        .map(|_| Inbox::new().expect("eventfd"))
        .collect();
    let now = Instant::from_millis(1);
    listening.poll(&[0], now, &inboxes, true);
    assert_eq!(told(&inboxes[0]), Some((1, vec![])));
    while inboxes[0].send(WorkerCommand::Detach(0)).is_ok() {}
    listening.take_places(&[]);
    listening.poll(&[0], now, &inboxes, true);
    while inboxes[0].take().is_some() {}
    assert!(listening.is_due(now + AGAIN_MS));
    listening.poll(&[0], now + AGAIN_MS, &inboxes, true);
    assert_eq!(told(&inboxes[0]), Some((0, vec![0])));
}

#[test]
fn an_address_that_is_gone_leaves_its_place_to_another() {
    let (a, b, c) = ("192.0.2.1:53", "[2001:db8:1::1]:53", "[2001:db8:2::1]:53");
    let mut listening = listening(&[a, b], 2);
    assert_eq!(taken(&mut listening, &[a, c]), [format!("1 {c}")]);
    assert_eq!(taken(&mut listening, &[b, c]), [format!("0 {b}")]);
    assert!(
        taken(&mut listening, &[a, b, c]).is_empty(),
        "all places are in use"
    );
    let left: Vec<_> = listening.places.iter().map(|place| place.address).collect();
    assert_eq!(left, addresses(&[b, c]));
}

#[test]
fn an_address_without_a_place_is_remembered_until_it_has_one() {
    let (a, b, c) = ("192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53");
    let mut listening = listening(&[a], 1);
    for _ in 0..2 {
        assert!(taken(&mut listening, &[a, b, c]).is_empty());
        assert_eq!(listening.left_out, addresses(&[b, c]), "said once");
    }
    assert_eq!(taken(&mut listening, &[b]), [format!("0 {b}")]);
    assert!(listening.left_out.is_empty());
}

#[test]
fn the_same_link_local_address_of_another_device_is_another() {
    let (old, new) = ("[fe80::1%3]:53", "[fe80::1%8]:53");
    let mut listening = listening(&[old], 2);
    assert_eq!(taken(&mut listening, &[new]), [format!("0 {new}")]);
}

#[test]
fn an_address_that_another_process_has_is_taken_when_it_is_free_and_not_before() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("its address");
    let mut listening = listening(&[&address.to_string()], 1);
    let inboxes: Vec<Inbox> = (0..ENGINES)
        .map(|_| Inbox::new().expect("eventfd"))
        .collect();
    let now = Instant::from_millis(1);
    assert!(listening.is_due(now));
    listening.poll(&[0, TCP], now, &inboxes, true);
    assert_eq!(listening.serving(), 0);
    let shared = UdpSocket::bind(address);
    assert!(shared.is_ok(), "nor is its UDP socket");
    drop((other, shared));
    let later = now + AGAIN_MS;
    assert!(
        !listening.is_due(now + (AGAIN_MS - 1)) && listening.is_due(later),
        "after a pause"
    );
    listening.poll(&[0, TCP], later, &inboxes, true);
    assert_eq!(listening.serving(), 1);
    assert!(!listening.is_due(later + AGAIN_MAX_MS));
    for engine in [0, TCP] {
        let Some(WorkerCommand::Listen(listeners)) = inboxes[engine].take() else {
            panic!("engine {engine} got nothing")
        };
        assert_eq!(
            (listeners.udp.len(), listeners.tcp.len()),
            if engine == TCP { (0, 1) } else { (1, 0) }
        );
    }
}

#[test]
fn a_worker_whose_inbox_is_full_gets_its_sockets_later() {
    let mut listening = listening(&["127.0.0.1:0"], 1);
    let inboxes: Vec<Inbox> = (0..ENGINES)
        .map(|_| Inbox::new().expect("eventfd"))
        .collect();
    while inboxes[0].send(WorkerCommand::Detach(0)).is_ok() {}
    let now = Instant::from_millis(1);
    listening.poll(&[0, TCP], now, &inboxes, true);
    assert_eq!(listening.serving(), 0);
    while inboxes[0].take().is_some() {}
    listening.poll(&[0, TCP], now + AGAIN_MS, &inboxes, true);
    assert_eq!(listening.serving(), 1);
    assert!(matches!(inboxes[0].take(), Some(WorkerCommand::Listen(_))));
}

#[test]
fn a_worker_that_is_started_later_gets_a_socket_for_each_address() {
    let mut listening = listening(&["127.0.0.1:0", "[::1]:0"], 2);
    let inboxes: Vec<Inbox> = (0..ENGINES)
        .map(|_| Inbox::new().expect("eventfd"))
        .collect();
    let now = Instant::from_millis(1);
    listening.poll(&[0, TCP], now, &inboxes, true);
    assert_eq!(listening.serving(), 2);
    listening.expect_more();
    assert_eq!(listening.open(1, now).udp.len(), 2);
    listening.poll(&[0, 1, TCP], now, &inboxes, true);
    assert_eq!(listening.serving(), 2);
}

/// epoll had no room for it.
#[test]
fn a_socket_that_a_worker_cannot_wait_at_is_opened_again_after_a_pause() {
    let now = Instant::from_millis(1_000);
    let mut listening = listening(&["127.0.0.1:0", "127.0.0.2:0"], 2);
    let inboxes: Vec<_> = (0..ENGINES)
        .map(|_| Inbox::new().expect("an eventfd"))
        .collect();
    let engines = [0, TCP];
    listening.poll(&engines, now, &inboxes, true);
    assert_eq!(listening.serving(), 2);
    let mut due = now;
    for pause in [AGAIN_MS, 2 * AGAIN_MS] {
        for engine in engines {
            let Some(WorkerCommand::Listen(mut listeners)) = inboxes[engine].take() else {
                panic!("sockets for engine {engine}")
            };
            listeners.udp.retain(|(place, _)| *place == 1);
            listeners.tcp.retain(|(place, _)| *place == 1);
            inboxes[engine].give_back(*listeners, io::Error::other("no room"));
        }
        listening.take_back(&engines, due, &inboxes);
        assert_eq!(listening.serving(), 1);
        assert!(!listening.is_due(due + (pause - 1)));
        due = due + pause;
        assert!(listening.is_due(due));
        listening.poll(&engines, due, &inboxes, true);
        assert_eq!(listening.serving(), 2);
    }
    for engine in engines {
        let Some(WorkerCommand::Listen(listeners)) = inboxes[engine].take() else {
            panic!("sockets for engine {engine}")
        };
        assert_eq!(listeners.places(), [1]);
    }
}

#[test]
fn a_worker_that_is_started_again_gets_all_its_sockets() {
    let mut listening = listening(&["127.0.0.1:0"], 1);
    let now = Instant::from_millis(1_000);
    assert_eq!(listening.open(1, now).places(), [0]);
    assert!(listening.open(1, now).places().is_empty());
    listening.places[0].left[1] = true;
    listening.forget(1);
    let listeners = listening.open(1, now);
    assert_eq!(listeners.places(), [0]);
    assert!(listeners.left.is_empty(), "it has nothing to close");
}
