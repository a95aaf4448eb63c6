//! Shared by the tests of several TCP programs.

/// Offset of the flags in [`segment`].
pub const FLAGS: usize = 47;
/// Destination of [`segment`].
pub const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// A frame with a segment from 192.0.2.1, port 40000, to 192.0.2.53, port 53, with the sequence number 0x11223344, the
/// acknowledgment number 0x55667788, and these bytes of offset, flags and window.
pub const fn segment([offset, flags, window_high, window_low]: [u8; 4]) -> [u8; 54] {
    [
        0x02,
        0x00,
        0x00,
        0x00,
        0x00,
        0x01,
        0x02,
        0x00,
        0x00,
        0x00,
        0x00,
        0x02,
        0x08,
        0x00,
        0x45,
        0x00,
        0x00,
        0x28,
        0x12,
        0x34,
        0x40,
        0x00,
        0x40,
        0x06,
        0xa4,
        0x65,
        0xc0,
        0x00,
        0x02,
        0x01,
        0xc0,
        0x00,
        0x02,
        0x35,
        0x9c,
        0x40,
        0x00,
        0x35,
        0x11,
        0x22,
        0x33,
        0x44,
        0x55,
        0x66,
        0x77,
        0x88,
        offset,
        flags,
        window_high,
        window_low,
        0x00,
        0x00,
        0x00,
        0x00,
    ]
}

/// Lets a test's kernel receive by interface 3 and know no routes; it passes garbage.
macro_rules! without_routes {
    ($kernel:ty) => {
        impl crate::classify::FrameContext for $kernel {
            fn next_hop(&self, _: &crate::classify::ReplyFlow) -> Option<crate::classify::NextHop> {
                None
            }
            fn ingress(&self) -> u32 {
                3
            }
            fn drops_garbage(&self) -> bool {
                false
            }
        }
    };
}
pub(crate) use without_routes;
