//! The version of the binary contract.

/// Number of the ABI; it names the pin directory (`<pin-dir>/v<ABI>`), so that programs of another
/// version never meet these maps.
pub const ABI: u32 = 13;
