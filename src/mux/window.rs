//! Windows: the bytes that may be in flight on a stream, counted for each direction (protocol
//! 2.5). Only payload counts.

use super::fault_injection::{self, Bug};

/// Window of the sender: the bytes that the peer still accepts.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendWindow {
    left: u32,
    cap: u32,
}

impl SendWindow {
    pub(super) fn new(cap: u32) -> Self {
        SendWindow { left: cap, cap }
    }

    /// Returns how many bytes may be sent now.
    pub(super) fn left(self) -> u32 {
        self.left
    }

    /// Spends up to `wanted` bytes, at most `most`. Returns how many.
    pub(super) fn take(&mut self, wanted: usize, most: usize) -> u32 {
        let wanted = u32::try_from(wanted.min(most)).unwrap_or(u32::MAX);
        if fault_injection::is(Bug::GrantIgnoresWindow) {
            self.left = self.left.saturating_sub(wanted);
            return wanted;
        }
        let mut granted = wanted.min(self.left);
        if fault_injection::is(Bug::WindowOffByOne) && wanted > self.left {
            granted += 1;
        }
        self.left = self.left.saturating_sub(granted);
        granted
    }

    /// Adds a WNDINC. A window never exceeds its initial size. Returns whether the increment
    /// fitted, so that it can belong to bytes that were sent.
    pub(super) fn add(&mut self, increment: u32) -> bool {
        let room = self.cap.saturating_sub(self.left);
        self.left = self.left.saturating_add(increment.min(room));
        increment <= room
    }

    pub(super) fn check(self) {
        debug_assert!(self.left <= self.cap, "send window above its initial size");
    }
}

/// Window of the receiver. Each byte of it is in exactly one state: the peer may send it, the
/// current frame announces it, it waits to be consumed, or it is due to be returned.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveWindow {
    cap: u32,
    left: u32,
    arriving: u32,
    unconsumed: u32,
    owed: u32,
    /// Upper bound for the window; the rest is returned later.
    target: u32,
}

impl ReceiveWindow {
    pub(super) fn new(cap: u32) -> Self {
        ReceiveWindow { cap, left: cap, arriving: 0, unconsumed: 0, owed: 0, target: cap }
    }

    /// Accounts for a DATA frame of `length` bytes. Returns false if it exceeds the window.
    pub(super) fn announce(&mut self, length: u32) -> bool {
        let Some(left) = self.left.checked_sub(length) else { return false };
        self.left = left;
        self.arriving = self.arriving.saturating_add(length);
        true
    }

    /// Records that `n` announced bytes arrived and wait for the owner.
    pub(super) fn arrived(&mut self, n: u32) {
        debug_assert!(n <= self.arriving);
        self.arriving = self.arriving.saturating_sub(n);
        self.unconsumed = self.unconsumed.saturating_add(n);
    }

    /// Records that `n` announced bytes arrived and were consumed at once.
    pub(super) fn swallowed(&mut self, n: u32) {
        debug_assert!(n <= self.arriving);
        self.arriving = self.arriving.saturating_sub(n);
        if fault_injection::is(Bug::TypeNotCounted) {
            return;
        }
        self.owed = self.owed.saturating_add(n);
    }

    /// Records that the owner consumed `n` bytes, at most as many as it had. Returns how many
    /// it had.
    pub(super) fn consumed(&mut self, n: usize) -> u32 {
        let n = u32::try_from(n).unwrap_or(u32::MAX).min(self.unconsumed);
        self.unconsumed -= n;
        self.owed = self.owed.saturating_add(n);
        n
    }

    /// Returns the number of bytes that were passed on and not consumed.
    pub(super) fn unconsumed(self) -> u32 {
        self.unconsumed
    }

    /// Sets the upper bound for the window, at most its initial size.
    pub(super) fn set_target(&mut self, target: u32) {
        self.target = target.min(self.cap);
    }

    /// Returns how many bytes may be returned now.
    fn due(self) -> u32 {
        self.owed.saturating_sub(self.cap - self.target)
    }

    /// Returns whether a WNDINC is worth its frame: half of the window is due, or a quarter of
    /// it while the owner has no unconsumed bytes. So small requests need no WNDINC. A sender
    /// with a fast reader always has at least three quarters of the window, and bulk needs one
    /// WNDINC for four frames.
    pub(super) fn is_due(self) -> bool {
        self.half_is_due() || (self.unconsumed == 0 && self.due() > self.target / 4)
    }

    /// Returns whether half of the window is due.
    pub(super) fn half_is_due(self) -> bool {
        self.due() >= self.target.div_ceil(2).max(1)
    }

    /// Returns the due bytes to the window and their number, which may be 0.
    pub(super) fn give_back(&mut self) -> u32 {
        let owed = self.due();
        self.owed -= owed;
        self.left = self.left.saturating_add(owed);
        if fault_injection::is(Bug::GivesTooMuch) && owed > 0 {
            return owed.saturating_add(1);
        }
        owed
    }

    pub(super) fn check(self) {
        let sum = u64::from(self.left)
            + u64::from(self.arriving)
            + u64::from(self.unconsumed)
            + u64::from(self.owed);
        debug_assert_eq!(sum, u64::from(self.cap), "receive window does not add up: {self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sending_stops_at_zero_and_increments_stop_at_the_initial_size() {
        let mut window = SendWindow::new(100);
        assert_eq!(window.take(60, 1_000), 60);
        assert_eq!(window.take(60, 1_000), 40);
        assert_eq!(window.take(60, 1_000), 0);
        assert!(window.add(30));
        assert_eq!(window.take(60, 20), 20);
        assert!(!window.add(0x7FFF_FFFF));
        assert_eq!(window.left(), 100);
        assert!(!window.add(1));
        assert_eq!(window.left(), 100);
    }

    #[test]
    fn receiving_refuses_what_does_not_fit() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.announce(100));
        assert!(!window.announce(1));
        window.arrived(100);
        assert_eq!(window.consumed(1_000), 100, "never more than was received");
        assert_eq!(window.consumed(1), 0);
        window.check();
        assert_eq!(window.give_back(), 100);
        assert_eq!(window.give_back(), 0);
        assert!(window.announce(100));
        window.check();
    }

    #[test]
    fn a_smaller_target_keeps_what_is_owed_until_it_grows_again() {
        let mut window = ReceiveWindow::new(160);
        assert!(window.announce(160));
        window.arrived(160);
        window.set_target(40);
        window.consumed(100);
        assert!(!window.is_due(), "60 wait, more than the target");
        window.consumed(60);
        assert!(window.is_due());
        assert_eq!(window.give_back(), 40);
        window.check();
        assert_eq!(window.give_back(), 0);
        window.set_target(1_000);
        assert!(window.is_due());
        assert_eq!(window.give_back(), 120, "never more than the initial size");
        window.check();
    }

    #[test]
    fn increments_are_batched() {
        let mut window = ReceiveWindow::new(160);
        assert!(window.announce(100));
        window.arrived(100);
        window.consumed(79);
        assert!(!window.is_due());
        window.consumed(1);
        assert!(window.is_due(), "half is owed");
        window.consumed(20);
        assert_eq!(window.give_back(), 100);
        assert!(window.announce(10));
        window.arrived(10);
        window.consumed(10);
        assert!(!window.is_due(), "small reads are not worth a frame");
        assert!(window.announce(31));
        window.arrived(31);
        window.consumed(31);
        assert!(window.is_due(), "the owner has read all, a quarter is owed");
    }
}
