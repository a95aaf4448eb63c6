//! A socket with a UMEM of its own.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use xdnsd::os::xsk::{
    Batch, Census, CopyMode, Frame, Kick, Opener, Pool, SocketCounters, Statistics, Xsk,
};

/// A socket with a UMEM of its own.
pub struct Alone {
    pub xsk: Option<Xsk>,
    pub pool: Pool,
    pub opener: Opener,
}

impl Alone {
    fn socket(&mut self) -> (&mut Xsk, &mut Pool) {
        (self.xsk.as_mut().unwrap(), &mut self.pool)
    }

    pub fn receive(&mut self, batch: &mut Batch) -> usize {
        let (xsk, pool) = self.socket();
        xsk.receive(pool, batch)
    }

    pub fn take_free(&mut self) -> Option<Frame> {
        let (xsk, pool) = self.socket();
        xsk.take_free(pool)
    }

    pub fn transmit(&mut self, frame: Frame, len: usize) -> Result<(), Frame> {
        let (xsk, pool) = self.socket();
        xsk.transmit(pool, frame, len)
    }

    pub fn release(&mut self, frame: Frame) {
        let (xsk, pool) = self.socket();
        xsk.release(pool, frame);
    }

    pub fn flush(&mut self) -> Kick {
        let (xsk, pool) = self.socket();
        xsk.flush(pool)
    }

    pub fn probe(&mut self) -> Kick {
        self.socket().0.probe()
    }

    pub fn census(&self) -> Census {
        self.xsk.as_ref().unwrap().census(&self.pool)
    }

    pub fn counters(&self) -> SocketCounters {
        self.xsk.as_ref().unwrap().counters()
    }

    pub fn statistics(&self) -> nix::Result<Statistics> {
        self.xsk.as_ref().unwrap().statistics()
    }

    pub fn mode(&self) -> CopyMode {
        self.xsk.as_ref().unwrap().mode()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let closed = self.xsk.take().and_then(|xsk| self.opener.close(xsk));
        if let Some(closed) = closed {
            self.pool.reclaim(&closed);
        }
    }
}

impl AsFd for Alone {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.xsk.as_ref().unwrap().as_fd()
    }
}

impl AsRawFd for Alone {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
