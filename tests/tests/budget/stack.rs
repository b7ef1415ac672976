//! Stack of the deepest chain of calls of each program, from the object file.
//!
//! A frame counts from the lowest byte that its code names relative to the frame pointer, rounded up to 32 bytes, one byte at
//! least: `check_max_stack_depth` of kernels before 6.8 (later ones round to 16 where they compile to machine code).

use std::collections::BTreeMap;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

/// Bytes of an instruction, and of the rounding.
const INSTRUCTION: u64 = 8;
const ROUNDING: u32 = 32;
/// Frame pointer.
const R10: u8 = 10;
/// Chains are eight frames long at most; more is a loop that the verifier refuses anyway.
const FRAMES: u32 = 8;

/// A function: its section and the address of its first instruction in it.
type Place = (usize, u64);

/// What one function needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Bytes below the frame pointer.
    pub depth: u32,
    /// Whom it calls.
    pub calls: Vec<Place>,
}

/// Name of each program and bytes of its deepest chain.
pub fn of_object(object: &[u8]) -> BTreeMap<String, u32> {
    let file = object::File::parse(object).unwrap();
    let text = file.section_by_name(".text").map(|section| section.index());
    let mut frames = BTreeMap::new();
    let mut programs = BTreeMap::new();
    for symbol in file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
    {
        let index = symbol.section_index().unwrap();
        let section = file.section_by_index(index).unwrap();
        let (address, size) = (symbol.address(), symbol.size());
        let data = section.data_range(address, size).unwrap().unwrap();
        let relocated: BTreeMap<u64, Place> = section
            .relocations()
            .filter_map(|(at, relocation)| {
                let object::RelocationTarget::Symbol(target) = relocation.target() else {
                    return None;
                };
                let target = file.symbol_by_index(target).ok()?;
                Some((at, (target.section_index()?.0, target.address())))
            })
            .collect();
        let code = text.map_or(usize::MAX, |index| index.0);
        let frame = frame(data, (index.0, address), &relocated, code);
        let _ = frames.insert((index.0, address), frame);
        if Some(index) != text {
            let _ = programs.insert(symbol.name().unwrap().to_owned(), (index.0, address));
        }
    }
    let chain = |place: &Place| deepest(&frames, *place, FRAMES);
    programs
        .iter()
        .map(|(name, place)| (name.clone(), chain(place)))
        .collect()
}

/// Looks at the instructions of the function at `own`; `relocated` has the symbols that instructions refer to,
/// `text` is the section of functions.
fn frame(code: &[u8], own: Place, relocated: &BTreeMap<u64, Place>, text: usize) -> Frame {
    let mut found = Frame::default();
    // Which registers hold an address of the frame, and which.
    let mut copies = [None::<i32>; 16];
    copies[usize::from(R10)] = Some(0);
    for (number, bytes) in (0_u64..).zip(code.chunks_exact(8)) {
        let &[opcode, registers, off_low, off_high, a, b, c, d] = bytes else {
            continue;
        };
        let (to, from) = (registers & 15, registers >> 4);
        let offset = i32::from(i16::from_le_bytes([off_low, off_high]));
        let immediate = i32::from_le_bytes([a, b, c, d]);
        let at = own.1 + number * INSTRUCTION;
        let mut touch = |base: Option<i32>, offset: i32| {
            let lowest = base.map_or(0, |base| base + offset);
            found.depth = found.depth.max(lowest.min(0).unsigned_abs());
        };
        match opcode & 7 {
            // BPF_LDX; BPF_ST and BPF_STX.
            1 => touch(copies[usize::from(from)], offset),
            2 | 3 => touch(copies[usize::from(to)], offset),
            _ => {}
        }
        copies[usize::from(to)] = match opcode {
            // `to = from`, `to += immediate`.
            0xbf => copies[usize::from(from)],
            0x07 => {
                let sum = copies[usize::from(to)].map(|base| base + immediate);
                touch(sum, 0);
                sum
            }
            // Comparisons, calls and stores change no register that is looked at.
            _ if matches!(opcode & 7, 2 | 3 | 5 | 6) => copies[usize::from(to)],
            _ => None,
        };
        copies[usize::from(R10)] = Some(0);
        let target = relocated.get(&at).copied();
        match (opcode, from) {
            // A call of a function (BPF_PSEUDO_CALL): relative to the symbol, else to the next instruction.
            (0x85, 1) => found.calls.push(match target {
                Some((section, base)) => (section, wrap(base, immediate + 1)),
                None => (own.0, wrap(at, immediate + 1)),
            }),
            // The address of a function, for a helper that calls it.
            (0x18, _) => found.calls.extend(
                target
                    .filter(|(section, _)| *section == text)
                    .map(|(section, base)| (section, base + u64::from(immediate.unsigned_abs()))),
            ),
            _ => {}
        }
    }
    found
}

fn deepest(frames: &BTreeMap<Place, Frame>, place: Place, left: u32) -> u32 {
    let frame = frames
        .get(&place)
        .unwrap_or_else(|| panic!("a call leads to no function: {place:?}"));
    assert!(left > 0, "more than {FRAMES} frames");
    let below = frame
        .calls
        .iter()
        .map(|call| deepest(frames, *call, left - 1));
    frame.depth.max(1).next_multiple_of(ROUNDING) + below.max().unwrap_or(0)
}

/// An address that many instructions further.
fn wrap(address: u64, instructions: i32) -> u64 {
    address.wrapping_add_signed(i64::from(instructions) * 8)
}

#[test]
fn frames_are_read_from_instructions() {
    let store = |offset: i16| {
        let [low, high] = offset.to_le_bytes();
        [0x7b, 0x1a, low, high, 0, 0, 0, 0]
    };
    // *(r10 - 8) = r1; r2 = r10; r2 += -72; r2 = 0 and what follows is no address of the frame; call +1.
    let code = [
        store(-8),
        [0xbf, 0xa2, 0, 0, 0, 0, 0, 0],
        [0x07, 0x02, 0, 0, 184, 255, 255, 255],
        [0xb7, 0x02, 0, 0, 0, 0, 0, 0],
        [0x07, 0x02, 0, 0, 0, 128, 255, 255],
        [0x85, 0x10, 0, 0, 1, 0, 0, 0],
    ]
    .concat();
    let expected = Frame {
        depth: 72,
        calls: vec![(1, 7 * INSTRUCTION)],
    };
    assert_eq!(frame(&code, (1, 0), &BTreeMap::new(), 1), expected);
}

#[test]
fn the_deepest_chain_counts() {
    let frame = |depth, calls: &[Place]| Frame {
        depth,
        calls: calls.to_vec(),
    };
    let frames = BTreeMap::from([
        ((1, 0), frame(0, &[(2, 0), (2, 8)])),
        ((2, 0), frame(33, &[])),
        ((2, 8), frame(1, &[(2, 16)])),
        ((2, 16), frame(200, &[])),
    ]);
    assert_eq!(deepest(&frames, (1, 0), FRAMES), 32 + 32 + 224);
}
