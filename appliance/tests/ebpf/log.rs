//! Records of the log: none without a reader, and only about actions of the shield.

use crate::bench::{Bench, listen};
use crate::frames::Query;
use xdnsd::os::xdp::EventRing;
use xdnsd_abi::{Reason, event};

#[test]
fn a_frame_is_told_of_while_somebody_reads_with_the_verdict_it_had_without() {
    let name = "a_frame_is_told_of_while_somebody_reads_with_the_verdict_it_had_without";
    let Some(mut bench) = Bench::new(name) else {
        return;
    };
    bench
        .program
        .set_drop_garbage(true)
        .expect("the map takes it");
    let ours = ["192.0.2.53", "2001:db8::53"];
    bench.listen(&ours.map(|address| (listen(address, 0, 0), 0)));
    let response = |mut query: Query| {
        query.message[2] |= 0x80;
        query.frame()
    };
    let dropped = [response(Query::v4()), response(Query::v6())];
    let passed = Query::between("192.0.2.1", "203.0.113.9").frame();
    let mut ring = EventRing::new().expect("a ring");
    bench.expect(&dropped[0], Reason::DropResponse);
    assert_eq!(ring.pop(), None, "nobody reads");
    let told = bench.program.write_log(&ring, event::ALL);
    told.expect("the kernel takes the program");
    for frame in &dropped {
        bench.expect(frame, Reason::DropResponse);
        bench.expect(&passed, Reason::PassForeign);
        let event = ring.pop().expect("it is told of");
        assert_eq!(
            (event.reason, event.len as usize),
            (Reason::DropResponse, frame.len())
        );
        let head = event::HEAD_BYTES
            .into_iter()
            .find(|len| *len <= frame.len());
        assert_eq!(Some(event.head_len), head);
        assert_eq!(event.head[..event.head_len], frame[..event.head_len]);
        assert!(event.time_ns > 0);
        assert_eq!(ring.pop(), None, "of what passes by nobody is told");
    }
    // A full ring loses records, and the verdict is the same.
    assert_eq!(bench.program.log_lost().expect("it is counted"), 0);
    for _ in 0..100 {
        bench.expect(&dropped[0], Reason::DropResponse);
    }
    let mut read = 0;
    while ring.pop().is_some() {
        read += 1;
    }
    assert!(read > 10, "{read}");
    assert_eq!(bench.program.log_lost().expect("it is counted"), 100 - read);
    bench.program.stop_log().expect("the map takes it");
    bench.expect(&dropped[0], Reason::DropResponse);
    assert_eq!(ring.pop(), None, "nobody reads any more");
}
