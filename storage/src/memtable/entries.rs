//! The entries of a memtable: stored batches as they came, and where in them each entry stands.

use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use super::chunked::Chunked;
use super::node::EntryId;
use crate::batch::{Change, value_at};
use crate::key::{Kind, Tag};

/// Offsets in a piece are 32 bits wide: of a batch that is longer, what is behind this becomes
/// another piece. (In the tests of this crate few bytes, so that it does happen.)
pub(super) const PIECE_BYTES_MAX: usize = if cfg!(test) { 1 << 10 } else { 1 << 30 };
/// What an allocation of a piece takes beside its bytes, and the handle to it.
pub(super) const PIECE_BYTES: usize = size_of::<OnceLock<Bytes>>() + 16;
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();
/// What the processor fetches from memory at a time.
const LINE_BYTES: usize = 64;
/// Behind so many it fetches more by itself.
const LINES_TOUCHED_MAX: usize = 4;

/// Filled by the one thread that was given the index, before a leaf shows it to others.
#[derive(Default)]
struct Slot {
    /// The piece, and where in it the key begins: 32 bits each.
    place: AtomicU64,
    /// The lengths of key and value: 32 bits each.
    lengths: AtomicU64,
    tag: AtomicU64,
}

pub(super) struct Entries {
    slots: Chunked<Slot, 6>,
    pieces: Chunked<OnceLock<Bytes>, 4>,
    next_slot: AtomicU32,
    next_piece: AtomicU32,
}

/// A piece that has its place, by its index.
#[derive(Clone, Copy)]
pub(super) struct PieceId(u32);

impl Entries {
    pub(super) fn new() -> Entries {
        Entries {
            slots: Chunked::new(),
            pieces: Chunked::new(),
            // Leaves say by a zero that there is no entry.
            next_slot: AtomicU32::new(1),
            next_piece: AtomicU32::new(0),
        }
    }

    /// The first of so many indexes, which nobody else is given.
    pub(super) fn take(&self, count: usize) -> EntryId {
        let first = self.next_slot.fetch_add(count as u32, Relaxed);
        assert!(first < u32::MAX / 2, "a memtable is flushed long before it has 2^31 entries");
        first
    }

    /// Gives a piece its place.
    pub(super) fn keep(&self, piece: Bytes) -> (PieceId, &Bytes) {
        let id = self.next_piece.fetch_add(1, Relaxed);
        (PieceId(id), self.pieces.get_or_grow(id).get_or_init(|| piece))
    }

    /// Says what an entry is: an operation that stands in this piece.
    pub(super) fn fill(&self, id: EntryId, piece: PieceId, change: Change<'_>, tag: Tag) {
        assert!(change.key_at <= u32::MAX as usize, "a piece is cut long before that");
        let slot = self.slots.get_or_grow(id);
        slot.place.store(pair(piece.0, change.key_at), Relaxed);
        slot.lengths.store(pair(change.key.len() as u32, change.value.len()), Relaxed);
        slot.tag.store(tag.stored(), Relaxed);
    }

    /// Key and tag. Only for an entry that a leaf has shown, or that the caller has filled.
    #[inline]
    pub(super) fn place(&self, id: EntryId) -> (&[u8], Tag) {
        let slot = self.slot(id);
        let (piece, key_at) = split(slot.place.load(Relaxed));
        let (key_bytes, _) = split(slot.lengths.load(Relaxed));
        (&self.piece(piece)[key_at..key_at + key_bytes as usize], tag_of(slot))
    }

    pub(super) fn tag(&self, id: EntryId) -> Tag {
        tag_of(self.slot(id))
    }

    pub(super) fn value(&self, id: EntryId) -> &[u8] {
        let (piece, from, bytes) = self.value_place(id);
        &piece[from..from + bytes]
    }

    /// The value as a handle that keeps its piece alive.
    pub(super) fn shared_value(&self, id: EntryId) -> Bytes {
        let (piece, from, bytes) = self.value_place(id);
        piece.slice(from..from + bytes)
    }

    /// Has the beginnings of entries in the processor's caches before they are needed: it then waits
    /// for many at once.
    pub(super) fn touch(&self, ids: &[EntryId]) {
        let slots = ids.iter().map(|id| self.slot(*id).place.load(Relaxed));
        black_box(slots.fold(0, |all, place| all ^ place));
        let lines = ids.iter().flat_map(|id| {
            let (piece, from, bytes) = self.value_place(*id);
            let (_, key_at) = split(self.slot(*id).place.load(Relaxed));
            piece[key_at..from + bytes].iter().step_by(LINE_BYTES).take(LINES_TOUCHED_MAX)
        });
        black_box(lines.fold(0, |all, byte| all ^ byte));
    }

    fn value_place(&self, id: EntryId) -> (&Bytes, usize, usize) {
        let slot = self.slot(id);
        let (piece, key_at) = split(slot.place.load(Relaxed));
        let (key_bytes, value_bytes) = split(slot.lengths.load(Relaxed));
        let from = match tag_of(slot).kind() {
            Kind::Put => value_at(key_at, key_bytes as usize, value_bytes),
            Kind::Delete => key_at,
        };
        (self.piece(piece), from, value_bytes)
    }

    fn slot(&self, id: EntryId) -> &Slot {
        self.slots.get(id).expect("a slot is filled before a leaf shows it")
    }

    fn piece(&self, id: u32) -> &Bytes {
        let piece = self.pieces.get(id).and_then(OnceLock::get);
        piece.expect("a piece is there before an entry that stands in it")
    }
}

fn tag_of(slot: &Slot) -> Tag {
    Tag::from_stored(slot.tag.load(Relaxed)).expect("it was filled with a tag")
}

fn pair(high: u32, low: usize) -> u64 {
    u64::from(high) << u32::BITS | low as u64
}

fn split(pair: u64) -> (u32, usize) {
    ((pair >> u32::BITS) as u32, (pair & u64::from(u32::MAX)) as usize)
}
