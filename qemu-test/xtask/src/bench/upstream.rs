//! An upstream of one answer: every name has the address 192.0.2.1 for a day.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use super::pair::Pair;

const HEADER_LEN: usize = 12;
const QUESTION_TAIL_LEN: usize = 5;
const MESSAGE_MAX: usize = 1500;
/// How late the thread sees that it shall stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Response, recursion desired and available, no error; one question, one answer.
const FLAGS_AND_COUNTS: [u8; 10] = [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
/// The question's name, A, IN, a day, 192.0.2.1.
const ANSWER: [u8; 16] = [0xc0, 0x0c, 0, 1, 0, 1, 0, 1, 0x51, 0x80, 0, 4, 192, 0, 2, 1];

/// The upstream's thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Starts it on the server's loopback.
    pub fn start(pair: &Pair) -> Result<Self> {
        let socket = pair
            .server
            .run(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
        let socket = socket.context("bind the upstream")?;
        socket
            .set_read_timeout(Some(LOOK_INTERVAL))
            .context("set a timeout")?;
        let address = socket.local_addr().context("the upstream's address")?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                serve(&socket);
            }
        });
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic of the thread has shown itself by answers that did not come.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Answers one query, or sees that none came.
fn serve(socket: &UdpSocket) {
    let mut query = [0; MESSAGE_MAX];
    let Ok((len, client)) = socket.recv_from(&mut query) else {
        return;
    };
    if let Some(response) = response(&query[..len]) {
        // Lost like any datagram: the forwarder asks again.
        drop(socket.send_to(&response, client));
    }
}

fn response(query: &[u8]) -> Option<Vec<u8>> {
    let question_len = question_len(query.get(HEADER_LEN..)?)?;
    let mut response = query[..2].to_vec();
    response.extend(FLAGS_AND_COUNTS);
    response.extend(query.get(HEADER_LEN..HEADER_LEN + question_len)?);
    response.extend(ANSWER);
    Some(response)
}

/// Labels up to the root, then type and class.
fn question_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + QUESTION_TAIL_LEN),
            label_len => at += 1 + usize::from(label_len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HEADER_LEN, response};
    use crate::bench::query::message;

    #[test]
    fn a_response_has_the_question_and_one_answer() {
        let query = message(5, 0x1234);
        let response = response(&query).expect("the query is whole");
        assert_eq!(response[..4], [0x12, 0x34, 0x81, 0x80]);
        assert_eq!(response[HEADER_LEN..query.len()], query[HEADER_LEN..]);
        assert_eq!(response.len(), query.len() + 16);
        for len in 0..query.len() {
            assert!(super::response(&query[..len]).is_none(), "cut at {len}");
        }
    }
}
