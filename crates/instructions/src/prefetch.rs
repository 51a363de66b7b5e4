//! Reading ahead.
#![allow(unsafe_code)]

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

/// Asks for bytes to be in the second-level cache soon. Nothing waits for them, and nothing else happens.
#[inline(always)]
pub fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(CACHE_LINE) {
        // SAFETY: prefetching reads nothing that a program could see, and the address is one of ours.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
}
