//! Products of numbers that are written in digits of a byte.

/// Digits of a left number, lowest first.
pub const LEFT: usize = 3;

/// Digits of a right number, lowest first.
pub const RIGHT: usize = 5;

/// The lowest order, i + j for the i-th digit times the j-th, that is summed. The one below, of a single product, is not.
pub const LOWEST: usize = 1;

/// Orders that are summed.
pub const ORDERS: usize = LEFT + RIGHT - 1 - LOWEST;

/// So many steps of 64 columns never overflow a sum: an order has at most [`LEFT`] products, of at most 2¹⁴ each.
pub const MOST_STEPS: usize = i32::MAX as usize / (LEFT << 14) / crate::LINE;
