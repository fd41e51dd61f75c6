//! Compaction: what to merge next, which entries survive it, and the merging itself.
//!
//! `shape` says how large each level should be, and `picker` answers with a plan for a tree that
//! is not so; `pressure` says how much writers must be held back meanwhile. All three are pure
//! functions. `parts` cuts a large plan into parts that several threads take; `retention` decides
//! over each entry; `merger` carries out a part: it reads sources in order and writes new segments.
//! The store then installs the results of all parts, or nothing of them.

mod shape;

mod picker;

mod pressure;

mod parts;

mod retention;

mod merger;

pub(crate) use self::merger::{Job, Output};
pub(crate) use self::parts::{Part, cut};
pub(crate) use self::picker::{Plan, pick, pick_idle, whole_level};
pub(crate) use self::pressure::{Debt, Level};
pub(crate) use self::retention::Retention;
pub(crate) use self::shape::{BOTTOM, Limits, Shape};
