//! Pure code that runs in the kernel, in tests, in the oracle's comparison and in `explain`.

pub mod address;
pub mod bucket;
pub mod failsafe;
pub mod packet;
pub mod port;
pub mod record;
pub mod stamp;
pub mod verdict;
