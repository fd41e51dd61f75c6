//! Compaction: what to merge next, which entries survive it, and the merging itself.
//!
//! `picker` looks at the shape of the tree and answers with a plan; it is a pure function.
//! `retention` decides over each entry. `merger` carries plans out: it reads sources in order and
//! writes new segments. The store then installs the result, or nothing of it.

mod merger;
mod picker;
mod retention;

pub(crate) use self::merger::{Job, Output};
pub(crate) use self::picker::{Limits, Plan, Resume, Shape, level_for, pick, whole_level};
pub(crate) use self::retention::Retention;
