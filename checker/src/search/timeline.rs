//! The calls and returns of what is known to have happened and is not yet taken, in time.

use super::{Problem, small};

/// Where the ring begins and ends.
const END: u32 = 0;

/// One call or return in the list of those to come, a ring through entry 0.
#[derive(Clone, Copy, Debug)]
struct Entry {
    time: u64,
    step: u32,
    is_return: bool,
    next: u32,
    previous: u32,
}

#[derive(Debug)]
pub(super) struct Timeline {
    entries: Vec<Entry>,
    /// For each required step its call entry and its return entry.
    places: Vec<Option<(u32, u32)>>,
    left: usize,
}

impl Timeline {
    pub(super) fn new(problem: &Problem) -> Self {
        let mut events: Vec<(u64, bool, u32)> = Vec::new();
        for (index, step) in (0u32..).zip(&problem.steps).filter(|(_, step)| step.required) {
            events.push((step.call, false, index));
            events.push((step.ret, true, index));
        }
        // At equal times calls come first: what touches is taken as overlapping.
        events.sort_unstable();
        let count = small(events.len());
        let next = if count == 0 { END } else { 1 };
        let first = Entry { time: 0, step: 0, is_return: false, next, previous: count };
        let mut entries = vec![first];
        let mut places = vec![None; problem.steps.len()];
        for ((time, is_return, step), at) in events.into_iter().zip(1..) {
            let next = if at == count { END } else { at + 1 };
            entries.push(Entry { time, step, is_return, next, previous: at - 1 });
            let (call, ret) = places[step as usize].get_or_insert((at, at));
            *(if is_return { ret } else { call }) = at;
        }
        Self { entries, places, left: count as usize / 2 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The steps called before the first return: one of them comes next.
    pub(super) fn called(&self) -> impl Iterator<Item = u32> {
        let mut at = self.entries[END as usize].next;
        std::iter::from_fn(move || {
            let here = at;
            let entry = self.entries[here as usize];
            at = entry.next;
            (here != END && !entry.is_return).then_some(entry.step)
        })
    }

    /// When the first of those not taken returns.
    pub(super) fn first_return(&self) -> u64 {
        let mut at = self.entries[END as usize].next;
        while at != END && !self.entries[at as usize].is_return {
            at = self.entries[at as usize].next;
        }
        self.entries[at as usize].time
    }

    pub(super) fn take(&mut self, step: u32) {
        if let Some((call, ret)) = self.places[step as usize] {
            self.left -= 1;
            self.unlink(call);
            self.unlink(ret);
        }
    }

    /// Undoes [`Self::take`] of the step taken last.
    pub(super) fn take_back(&mut self, step: u32) {
        if let Some((call, ret)) = self.places[step as usize] {
            self.left += 1;
            self.relink(ret);
            self.relink(call);
        }
    }

    fn unlink(&mut self, at: u32) {
        let Entry { next, previous, .. } = self.entries[at as usize];
        self.entries[previous as usize].next = next;
        self.entries[next as usize].previous = previous;
    }

    /// Undoes [`Self::unlink`], if everything unlinked after it is linked again.
    fn relink(&mut self, at: u32) {
        let Entry { next, previous, .. } = self.entries[at as usize];
        self.entries[previous as usize].next = at;
        self.entries[next as usize].previous = at;
    }
}
