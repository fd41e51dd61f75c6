//! What the picker's plans cost and what they leave, over a simulated load of random keys: no data,
//! only how much of it lies where.

use bytes::Bytes;

use super::*;

const MIB: u64 = 1 << 20;
const SEGMENT_BYTES: u64 = 64 * MIB;
/// What a memtable becomes.
const FLUSH_BYTES: u64 = 64 * MIB;

/// A segment of the model: it covers the keys from `from` to `to`, parts of one, as densely as
/// `density` says. One is every key there is.
#[derive(Clone, Copy)]
struct Piece {
    from: f64,
    to: f64,
    density: f64,
}

struct Model {
    limits: Limits,
    /// All keys once.
    live: u64,
    levels: [Vec<SegmentMeta>; LEVELS],
    pieces: std::collections::BTreeMap<u64, Piece>,
    next: u64,
    put: u64,
    written: u64,
    largest: u64,
    level0_most: usize,
}

fn key(place: f64) -> Bytes {
    Bytes::copy_from_slice(&((place * (1_u64 << 52) as f64) as u64).to_be_bytes())
}

impl Model {
    fn new(limits: Limits, live: u64) -> Model {
        let (levels, pieces) = Default::default();
        let (next, put, written, largest, level0_most) = (1, 0, 0, 0, 0);
        Model { limits, live, levels, pieces, next, put, written, largest, level0_most }
    }

    fn shape(&self) -> Shape<'_> {
        self.levels.each_ref().map(|level| level.iter().collect())
    }

    fn bytes(&self) -> u64 {
        self.levels.iter().flatten().map(|segment| segment.bytes).sum()
    }

    fn add(&mut self, level: usize, piece: Piece) {
        let bytes = ((piece.to - piece.from) * piece.density * self.live as f64) as u64;
        if bytes == 0 {
            return;
        }
        let id = self.next;
        self.next += 1;
        self.written += bytes;
        self.pieces.insert(id, piece);
        let meta = SegmentMeta {
            id,
            bytes,
            entries: bytes,
            deletes: 0,
            smallest: key(piece.from),
            // Of the next one it is the smallest.
            largest: key(piece.to - 1e-9),
            sequence_max: id,
        };
        if level == 0 {
            self.levels[0].insert(0, meta);
            return;
        }
        let at = self.levels[level].partition_point(|other| other.smallest < meta.smallest);
        self.levels[level].insert(at, meta);
    }

    fn flush(&mut self) {
        let density = -(-(FLUSH_BYTES as f64) / self.live as f64).exp_m1();
        self.add(0, Piece { from: 0.0, to: 1.0, density });
        self.put += FLUSH_BYTES;
        self.level0_most = self.level0_most.max(self.levels[0].len());
        self.largest = self.largest.max(self.bytes());
    }

    /// How densely all of these together cover the keys, piece by piece.
    fn union(pieces: &[Piece]) -> Vec<Piece> {
        let mut ends: Vec<f64> = pieces.iter().flat_map(|piece| [piece.from, piece.to]).collect();
        ends.sort_by(f64::total_cmp);
        ends.dedup();
        let part = |pair: &[f64]| {
            let middle = (pair[0] + pair[1]) / 2.0;
            let there = pieces.iter().filter(|piece| piece.from < middle && middle < piece.to);
            let density = 1.0 - there.map(|piece| 1.0 - piece.density).product::<f64>();
            Piece { from: pair[0], to: pair[1], density }
        };
        ends.windows(2).map(part).filter(|piece| piece.density > 0.0).collect()
    }

    fn carry_out(&mut self, plan: &Plan) {
        let pieces: Vec<Piece> = plan.ids().map(|id| self.pieces.remove(&id).unwrap()).collect();
        for level in &mut self.levels {
            level.retain(|segment| plan.ids().all(|id| id != segment.id));
        }
        if plan.is_move {
            let before = self.written;
            self.add(plan.to, pieces[0]);
            self.written = before;
            return;
        }
        if plan.to == 0 {
            return self.add(0, Model::union(&pieces)[0]);
        }
        // Cut into segments of about the same number of bytes.
        let mut full = 0.0;
        let mut segment: Option<Piece> = None;
        for mut piece in Model::union(&pieces) {
            while piece.from < piece.to {
                let room = SEGMENT_BYTES as f64 / self.live as f64 - full;
                let to = piece.to.min(piece.from + room / piece.density);
                let bytes = (to - piece.from) * piece.density;
                let from = segment.map_or(piece.from, |segment| segment.from);
                segment = Some(Piece { from, to, density: (full + bytes) / (to - from) });
                full += bytes;
                piece.from = to;
                if full * self.live as f64 >= SEGMENT_BYTES as f64 - 1.0 {
                    self.add(plan.to, segment.take().unwrap());
                    full = 0.0;
                }
            }
        }
        if let Some(last) = segment {
            self.add(plan.to, last);
        }
    }

    fn work(&mut self) {
        while let Some(plan) = pick(&self.shape(), &self.limits, &[]) {
            self.carry_out(&plan);
        }
    }

    fn settle(&mut self) {
        self.work();
        while let Some(plan) = pick_idle(&self.shape(), &self.limits, &[], 5, 0) {
            self.carry_out(&plan);
            self.work();
        }
    }
}

fn limits() -> Limits {
    crate::Options::default().limits()
}

/// Bytes written for each byte put, the log's not counted; the most there was on disk, and what is
/// left after settling, for each byte that lives.
fn amplification(limits: Limits, live: u64, rounds: u64) -> (f64, f64, f64) {
    let mut model = Model::new(limits, live);
    while model.put < live * rounds {
        model.flush();
        model.work();
        let shape = model.shape();
        for level in &shape[1..] {
            assert!(level.windows(2).all(|pair| pair[0].largest < pair[1].smallest));
        }
    }
    let written = model.written as f64 / model.put as f64;
    let largest = model.largest as f64 / live as f64;
    model.settle();
    (written, largest, model.bytes() as f64 / live as f64)
}

/// What is written and what is left stays within these bounds, however large the store is.
#[test]
#[cfg_attr(miri, ignore = "long, and arithmetic only")]
fn amplification_is_bounded() {
    let check = |live_mib: u64, rounds, written_max: f64, left_max: f64| {
        let (written, largest, left) = amplification(limits(), live_mib * MIB, rounds);
        println!("{live_mib} MiB: written {written:.2}, most {largest:.2}, left {left:.2}");
        assert!(written <= written_max, "{live_mib} MiB: {written:.2} written");
        assert!(left <= left_max, "{live_mib} MiB: {left:.2} left");
    };
    check(288, 3, 1.5, 1.06);
    check(1 << 10, 4, 3.2, 1.06);
    check(5 << 10, 4, 7.0, 1.06);
}
